"""The tokenizer of a GGUF file as a `tokenizer.json` for the `tokenizers` library.

llama.cpp is the oracle: control tokens become special added tokens, user-defined ones plain added tokens, so that
encoding equals its `tokenize` both with and without `parse_special`. Equal metadata gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_config import INCOMPLETE, Metadata
from edgeai.sources.gguf_format import GGUFFile
from edgeai.sources.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer
from edgeai.sources.weights import TokenizerFiles

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4

# Tokens that end a reply whatever the metadata says, and are control tokens whatever their type (llama-vocab.cpp).
END_TOKENS = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    }
)
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
TEMPLATE_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def read_tokenizer(file: GGUFFile, *, vocab_size: int) -> TokenizerFiles:
    """Rebuild the tokenizer; `UnsupportedModel` for any but byte-level BPE, `SourceError` for damaged metadata."""
    metadata = Metadata(file)
    pre = _pre_tokenizer(metadata)
    tokens = _tokens(metadata, vocab_size)
    types = _types(metadata, tokens)
    bos = _token_id(metadata, "bos_token_id", vocab_size)
    add_bos = metadata.get(PREFIX + "add_bos_token", bool, pre.add_bos) and bos is not None
    document = _document(tokens, types, _merges(metadata, tokens), pre)
    if add_bos and bos is not None:
        document["post_processor"] = _leading(tokens[bos], bos)
    return TokenizerFiles(
        tokenizer_json=_serialize(document, file.path.name),
        chat_template=metadata.get("tokenizer.chat_template", str),
        eos_token_ids=_end_ids(metadata, tokens),
        bos_token_id=bos,
        add_bos=add_bos,
        special_tokens=_special_tokens(metadata, tokens),
    )


def _pre_tokenizer(metadata: Metadata) -> PreTokenizer:
    model = metadata.require(PREFIX + "model", str)
    if model != "gpt2":
        raise UnsupportedModel(
            f"{metadata.name}: tokenizer {model!r} is not supported", "supported: gpt2 (byte-level BPE)"
        )
    name = metadata.get(PREFIX + "pre", str, "default")
    if name not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise UnsupportedModel(f"{metadata.name}: pre-tokenizer {name!r} is not supported", f"supported: {known}")
    return PRE_TOKENIZERS[name]


def _tokens(metadata: Metadata, vocab_size: int) -> list[str]:
    tokens = _list(metadata, "tokens", str)
    if len(tokens) != vocab_size:
        raise SourceError(f"{metadata.name}: {len(tokens)} tokens for an embedding of {vocab_size} rows", INCOMPLETE)
    named = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(named)) != len(named):
        raise SourceError(f"{metadata.name}: the vocabulary lists a token twice", INCOMPLETE)
    return named


def _types(metadata: Metadata, tokens: Sequence[str]) -> list[int]:
    """The type of each token; end tokens that were converted with another type are control tokens all the same."""
    types: list[int] = [NORMAL] * len(tokens)
    if PREFIX + "token_type" in metadata.values:
        types = _list(metadata, "token_type", int)
    if len(types) != len(tokens):
        raise SourceError(f"{metadata.name}: {len(types)} token types for {len(tokens)} tokens", INCOMPLETE)
    return [CONTROL if token in END_TOKENS else kind for token, kind in zip(tokens, types, strict=True)]


def _merges(metadata: Metadata, tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs in order of rank. Those that cannot make a token mean nothing to llama.cpp, an error to `tokenizers`."""
    known = set(tokens)
    merges: dict[tuple[str, str], None] = {}
    for merge in _list(metadata, "merges", str):
        cut = merge.find(" ", 1)
        if cut < 0:
            raise SourceError(f"{metadata.name}: merge {merge!r} is not a pair", INCOMPLETE)
        left, right = merge[:cut], merge[cut + 1 :]
        if {left, right, left + right} <= known:
            merges.setdefault((left, right))
    return list(merges)


def _list(metadata: Metadata, name: str, kind: type[Any]) -> list[Any]:
    values: list[Any] = metadata.require(PREFIX + name, list)
    if not all(isinstance(value, kind) for value in values):
        raise SourceError(f"{metadata.name}: {PREFIX + name} is not a list of {kind.__name__}", INCOMPLETE)
    return values


def _document(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, str]], pre: PreTokenizer
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokens, types),
        "normalizer": None,
        "pre_tokenizer": pre.to_json(),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _added_tokens(tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": token, **plain, "special": kind != USER_DEFINED}
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _leading(token: str, token_id: int) -> dict[str, Any]:
    """A post-processor that puts one token in front, for other readers of the file; edgeai adds BOS by id."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, {"SpecialToken": {"id": token, "type_id": 1}}, second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _serialize(document: Mapping[str, Any], name: str) -> bytes:
    """The file's bytes, after the library has accepted them."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise SourceError(f"{name}: the tokenizer cannot be rebuilt: {error}", INCOMPLETE) from error
    return text.encode("utf-8")


def _token_id(metadata: Metadata, name: str, vocab_size: int) -> int | None:
    """A token id of the metadata, or None when it is absent."""
    value: int | None = metadata.get(PREFIX + name, int)
    if value is not None and not 0 <= value < vocab_size:
        raise SourceError(f"{metadata.name}: {name} is {value}, outside the {vocab_size} tokens", INCOMPLETE)
    return value


def _end_ids(metadata: Metadata, tokens: Sequence[str]) -> tuple[int, ...]:
    """Tokens that end a reply, the metadata's own first."""
    named = [_token_id(metadata, key, len(tokens)) for key in END_KEYS]
    known = [index for index, token in enumerate(tokens) if token in END_TOKENS]
    return tuple(dict.fromkeys(index for index in [*named, *known] if index is not None))


def _special_tokens(metadata: Metadata, tokens: Sequence[str]) -> dict[str, str]:
    ids = {name: _token_id(metadata, f"{key}_token_id", len(tokens)) for name, key in TEMPLATE_NAMES.items()}
    return {name: tokens[index] for name, index in ids.items() if index is not None}
