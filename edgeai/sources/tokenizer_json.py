"""A tokenizer.json for the `tokenizers` library out of a vocabulary: tokens with their types, and merges or scores.

Three kinds: byte-level BPE (GPT-2 and most models since), and SentencePiece's BPE and unigram models, as they are
found in GGUF metadata and in tokenizer.model files. Equal vocabularies give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from edgeai.errors import SourceError

# Token types; GGUF has taken SentencePiece's numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
ADDED = (UNKNOWN, CONTROL, USER_DEFINED)  # found in the text before anything else happens to it


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, with the type of each. `swallows_after` are ids of tokens that take the whitespace behind them."""

    tokens: Sequence[str]
    types: Sequence[int]
    swallows_after: frozenset[int] = field(default_factory=frozenset)

    @property
    def has_bytes(self) -> bool:
        """Whether unknown characters can be spelled byte by byte."""
        return BYTE in self.types

    @property
    def unknown(self) -> int | None:
        """Id of the token for what the vocabulary does not have."""
        return next((index for index, kind in enumerate(self.types) if kind == UNKNOWN), None)


def tokenizer_json(
    vocabulary: Vocabulary,
    model: Mapping[str, Any],
    *,
    normalizer: Mapping[str, Any] | None = None,
    pre_tokenizer: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any],
) -> dict[str, Any]:
    """The document around a `model`."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def byte_level_bpe(
    vocabulary: Vocabulary,
    merges: Iterable[tuple[str, str]],
    pre_tokenizer: Mapping[str, Any],
    *,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """The tokenizer.json of a byte-level BPE model; `ignore_merges`: a word that is itself a token skips the merges."""
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    model = bpe_model(vocabulary, merges, ignore_merges=ignore_merges)
    return tokenizer_json(vocabulary, model, pre_tokenizer=pre_tokenizer, decoder=decoder)


def bpe_model(vocabulary: Vocabulary, merges: Iterable[tuple[str, str]], **options: Any) -> dict[str, Any]:
    """The `model` of a BPE tokenizer; merges in order of rank."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(vocabulary.tokens)},
        "merges": list(merges),
        **options,
    }


def serialize(document: Mapping[str, Any], name: str) -> bytes:
    """The file's bytes, after the library has accepted them. Raises `SourceError` that names the file `name`."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise SourceError(
            f"{name}: the tokenizer cannot be rebuilt: {error}", "the file was converted incompletely; use another one"
        ) from error
    return text.encode("utf-8")


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {
            "id": index,
            "content": token,
            **plain,
            "rstrip": index in vocabulary.swallows_after,
            "special": kind != USER_DEFINED,
        }
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in ADDED
    ]


def leading(token: str, token_id: int) -> dict[str, Any]:
    """A post-processor that puts one token in front, for other readers of the file; edgeai adds BOS by id."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, {"SpecialToken": {"id": token, "type_id": 1}}, second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }
