"""The tokenizer of a checkpoint folder: tokenizer.json as it is, and what the files beside it say about its use.

transformers is the oracle. What it does when it loads a tokenizer is done here to the document, so that the device
needs nothing but the `tokenizers` library: tokens that only `tokenizer_config.json` lists are added, and truncation and
padding, which belong to training, are taken out. Where there is no tokenizer.json, one is made of `vocab.json` and
`merges.txt`, or of SentencePiece's `tokenizer.model`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import tokenizers

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.bpe_files import MERGES, VOCABULARY, read_bpe
from edgeai.sources.checkpoint_files import INCOMPLETE, optional_json, read_json
from edgeai.sources.generation_config import GENERATION, end_token_ids, sampling_defaults
from edgeai.sources.gguf_control_tokens import END_TOKENS
from edgeai.sources.sentencepiece_model import read_sentencepiece
from edgeai.sources.weights import TokenizerFiles

DOCUMENT = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
PIECES = "tokenizer.model"
COMPANY = (SETTINGS, SPECIAL_TOKENS, ADDED_TOKENS, TEMPLATE, TEMPLATE_JSON, GENERATION)

TEMPLATE_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # as chat templates name them
# Classes of transformers that put BOS in front by their own setting, whatever the document's post-processor does.
BOS_BY_SETTING = {"Llama": True, "CodeLlama": True, "Gemma": True, "Cohere": True, "GPTNeoX": False}
# Special tokens of transformers' classes, where no file names them.
LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CLASS_TOKENS = {
    "Llama": LLAMA_TOKENS,
    "CodeLlama": LLAMA_TOKENS,
    "Gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "GPT2": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    "Qwen2": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> TokenizerFiles:
    """Read the tokenizer of `folder`, whose model has the configuration `config`.

    Raises `SourceError` for files that are missing, damaged or do not fit the model.
    """
    settings = optional_json(folder / SETTINGS)
    special_map = optional_json(folder / SPECIAL_TOKENS)
    special = _special_tokens(settings, special_map)
    document = _document(folder, str(settings.get("tokenizer_class") or config.get("tokenizer_class") or ""))
    _add_missing(document, _listed_tokens(folder, settings))
    _mark_special(document, [*special.values(), *_additional(settings, special_map)])
    document["truncation"] = document["padding"] = None
    _set_prefix_space(document, settings)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    backend = _accepted(text)
    _check_ids(backend, document)
    _check_size(backend, config)
    bos = _bos_id(backend, special, settings, config)
    generation = optional_json(folder / GENERATION)
    ends = end_token_ids(generation, config, [special[k] for k in ("eos_token",) if k in special], backend)
    return TokenizerFiles(
        tokenizer_json=text.encode(),
        chat_template=_chat_template(folder, settings),
        eos_token_ids=tuple(dict.fromkeys([*ends, *_known_ends(backend)])),
        bos_token_id=bos,
        add_bos=bos is not None and _adds_bos(backend, bos, settings),
        special_tokens=special,
        sampling=sampling_defaults(generation),
    )


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that may be read: the older forms of a tokenizer only where there is no tokenizer.json."""
    return (DOCUMENT, *COMPANY) if (folder / DOCUMENT).exists() else (VOCABULARY, MERGES, PIECES, *COMPANY)


def _document(folder: Path, tokenizer_class: str) -> dict[str, Any]:
    if (folder / DOCUMENT).exists():
        return read_json(folder / DOCUMENT)
    if (folder / PIECES).exists():
        return read_sentencepiece(folder / PIECES)
    if (folder / VOCABULARY).exists() and (folder / MERGES).exists():
        return read_bpe(folder, tokenizer_class)
    raise UnsupportedModel(
        f"{folder.name} has no {DOCUMENT}, nor {VOCABULARY} with {MERGES}, nor {PIECES}",
        "make a tokenizer.json with transformers: AutoTokenizer, save_pretrained",
    )


def _listed_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Added tokens by id, as the files beside the document list them."""
    listed: dict[int, dict[str, Any]] = {}
    for content, token_id in optional_json(folder / ADDED_TOKENS).items():
        if type(token_id) is not int:
            raise SourceError(f"{ADDED_TOKENS}: {content!r} has the id {token_id!r}", INCOMPLETE)
        listed[token_id] = {"content": content}
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise SourceError(f"{SETTINGS}: added_tokens_decoder is no table", INCOMPLETE)
    for key, entry in decoder.items():
        if not key.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise SourceError(f"{SETTINGS}: added token {key!r} has no content", INCOMPLETE)
        listed[int(key)] = entry
    return dict(sorted(listed.items()))


def _add_missing(document: dict[str, Any], listed: Mapping[int, Mapping[str, Any]]) -> None:
    """Put tokens into the document that only other files list; those it has already are as it says."""
    added = document.setdefault("added_tokens", [])
    if not isinstance(added, list) or not all(isinstance(t, dict) and type(t.get("id")) is int for t in added):
        raise SourceError(f"{DOCUMENT}: added_tokens is no list of tokens", INCOMPLETE)
    there = {token.get("content") for token in added} | {token["id"] for token in added}
    vocabulary = _vocabulary(document)
    for token_id, entry in listed.items():
        content = entry["content"]
        if token_id in there or content in there:
            continue
        if vocabulary.get(content, token_id) != token_id:
            raise SourceError(
                f"token {content!r} is {vocabulary[content]} in {DOCUMENT} and {token_id} elsewhere", INCOMPLETE
            )
        flags = {flag: bool(entry.get(flag, False)) for flag in FLAGS}
        added.append({"id": token_id, "content": content, **flags})
    added.sort(key=itemgetter("id"))


def _mark_special(document: dict[str, Any], names: Iterable[str]) -> None:
    """Tokens that a file names as special are so, though the document has them among ordinary ones."""
    added = document["added_tokens"]
    vocabulary = _vocabulary(document)
    for content in dict.fromkeys(names):
        if content in vocabulary and all(token.get("content") != content for token in added):
            flags = dict.fromkeys(FLAGS, False) | {"special": True}
            added.append({"id": vocabulary[content], "content": content, **flags})
    added.sort(key=itemgetter("id"))


def _additional(*sources: Mapping[str, Any]) -> list[str]:
    """Further special tokens, of chats for example; transformers 5 has another word for them."""
    values: list[Any] = []
    for source in sources:
        for key in ("additional_special_tokens", "extra_special_tokens"):
            stated = source.get(key)
            values += stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else []
    contents = [value.get("content") if isinstance(value, dict) else value for value in values]
    return [content for content in contents if isinstance(content, str)]


def _vocabulary(document: Mapping[str, Any]) -> Mapping[str, int]:
    """Ids of the tokens: of BPE a table, of unigram models a list of tokens and scores, in which places are ids."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        return {entry[0]: index for index, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    return vocabulary if isinstance(vocabulary, dict) else {}


def _set_prefix_space(document: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Transformers overrides the document's own setting, with "no" where the configuration does not say."""
    cutter = document.get("pre_tokenizer")
    if settings and isinstance(cutter, dict) and cutter.get("type") == "ByteLevel":
        cutter["add_prefix_space"] = bool(settings.get("add_prefix_space", False))


def _accepted(text: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        raise SourceError(f"{DOCUMENT} is not accepted by the tokenizers library: {error}", INCOMPLETE) from error


def _check_ids(backend: tokenizers.Tokenizer, document: Mapping[str, Any]) -> None:
    """The library numbers added tokens by itself, one after the other; they have to be where the files say."""
    for token in document["added_tokens"]:
        actual = backend.token_to_id(token["content"])
        if actual != token["id"]:
            raise SourceError(
                f"{DOCUMENT}: token {token['content']!r} would be {actual}, the files say {token['id']}", INCOMPLETE
            )


def _check_size(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Every token needs its row in the token table; the table may have more rows than there are tokens."""
    rows = config.get("vocab_size")
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
    if isinstance(rows, int) and largest >= rows:
        token = backend.id_to_token(largest)
        raise SourceError(
            f"{DOCUMENT}: token {token!r} has the id {largest}, the model only {rows} rows",
            "tokenizer and weights are not of the same model; get them again",
        )


def _special_tokens(settings: Mapping[str, Any], special_map: Mapping[str, Any]) -> dict[str, str]:
    """Text of the special tokens; the tokenizer's configuration comes first, the defaults of its class last."""
    tokens: dict[str, str] = {}
    defaults = CLASS_TOKENS.get(_family(settings), {})
    for name in TEMPLATE_TOKENS:
        source = next((source for source in (settings, special_map, defaults) if name in source), {})
        value = source.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            tokens[name] = content
    return tokens


def _family(settings: Mapping[str, Any]) -> str:
    return str(settings.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")


def _bos_id(
    backend: tokenizers.Tokenizer, special: Mapping[str, str], settings: Mapping[str, Any], config: Mapping[str, Any]
) -> int | None:
    if "bos_token" in special:
        token_id: int | None = backend.token_to_id(special["bos_token"])
        return token_id
    if settings:  # it says that there is none; the model's configuration may still name an id that was never used so
        return None
    stated = config.get("bos_token_id")
    return stated if type(stated) is int and backend.id_to_token(stated) is not None else None


def _adds_bos(backend: tokenizers.Tokenizer, bos: int, settings: Mapping[str, Any]) -> bool:
    """Whether transformers puts BOS in front of plain text: by the class's setting, or by the post-processor."""
    family = _family(settings)
    if family in BOS_BY_SETTING:
        return bool(settings.get("add_bos_token", BOS_BY_SETTING[family]))
    plain, whole = (backend.encode("a", add_special_tokens=special).ids for special in (False, True))
    return plain[:1] != [bos] and whole[:1] == [bos]


def _known_ends(backend: tokenizers.Tokenizer) -> Iterable[int]:
    """Control tokens that end a turn in the model families we know, whatever the configuration forgot."""
    added = backend.get_added_tokens_decoder()
    return (token_id for token_id, token in sorted(added.items()) if token.special and token.content in END_TOKENS)


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template in a file of its own, or in the tokenizer's configuration; of several the one called "default"."""
    if (folder / TEMPLATE).exists():
        try:
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"cannot read {TEMPLATE}: {error}", INCOMPLETE) from error
    value = settings.get("chat_template")
    if value is None:
        value = optional_json(folder / TEMPLATE_JSON).get("chat_template")
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default", next(iter(named.values()), None))
    if value is not None and not isinstance(value, str):
        raise SourceError(f"{SETTINGS}: chat_template is neither a text nor a list of named texts", INCOMPLETE)
    return value
