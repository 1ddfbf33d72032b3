"""A `tokenizer.model` of SentencePiece: the protocol buffer that its trainer writes, as a tokenizer.json.

Fields and their defaults after sentencepiece_model.proto:

    ModelProto      1 pieces, 2 trainer_spec, 3 normalizer_spec
    SentencePiece   1 piece, 2 score, 3 type (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte)
    TrainerSpec     3 model_type (1 unigram, 2 BPE, 3 word, 4 character), 24 treat_whitespace_as_suffix
    NormalizerSpec  2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_format import DAMAGED
from edgeai.sources.protobuf import fields, float32, integer, raw, text
from edgeai.sources.sentencepiece_charsmap import check_charsmap
from edgeai.sources.sentencepiece_json import SentencePiece, sentencepiece_bpe, sentencepiece_unigram
from edgeai.sources.tokenizer_json import BYTE, NORMAL, Vocabulary

BUILDERS = {1: sentencepiece_unigram, 2: sentencepiece_bpe}
KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


@dataclass(slots=True)
class _Rules:
    """Settings of trainer and normalizer that matter, at their defaults."""

    kind: int = 1
    space_suffix: bool = False
    charsmap: bytes = b""
    space_prefix: bool = True
    remove_extra_spaces: bool = True
    escape_spaces: bool = True


def read_sentencepiece(path: Path) -> dict[str, Any]:
    """The model as a tokenizer.json. Raises `SourceError` for damage, `UnsupportedModel` for another kind of model."""
    name = path.name
    model, rules = parse(path.read_bytes(), name)
    if rules.kind not in BUILDERS:
        kind = KINDS.get(rules.kind, rules.kind)
        raise UnsupportedModel(f"{name}: a {kind} model is not supported", "unigram and BPE models are")
    if rules.space_suffix or not rules.escape_spaces:
        raise UnsupportedModel(f"{name}: spaces as suffixes, or left as they are, are not supported")
    return BUILDERS[rules.kind](model)


def parse(data: bytes, name: str) -> tuple[SentencePiece, _Rules]:
    """Vocabulary, scores and rules of a model. Raises `SourceError` that names the file `name`."""
    tokens: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    rules = _Rules()
    seen = set()
    for number, value in fields(data, name):
        seen.add(number)
        if number == 1:
            token, score, kind = _piece(raw(value, name), name)
            tokens.append(token)
            scores.append(score)
            types.append(kind)
        elif number == 2:
            _trainer(raw(value, name), name, rules)
        elif number == 3:
            _normalizer(raw(value, name), name, rules)
    if not {2, 3} <= seen:
        raise SourceError(f"{name}: the settings behind the vocabulary are missing", DAMAGED)
    if not tokens or len(set(tokens)) != len(tokens):
        what = "lists a token twice" if tokens else "lists no tokens"
        raise SourceError(f"{name}: the vocabulary {what}", DAMAGED)
    if rules.charsmap:
        check_charsmap(rules.charsmap, name)
    vocabulary = Vocabulary(tokens, types)
    return SentencePiece(vocabulary, scores, rules.space_prefix, rules.remove_extra_spaces, rules.charsmap), rules


def _piece(data: bytes, name: str) -> tuple[str, float, int]:
    token, score, kind = "", 0.0, NORMAL
    for number, value in fields(data, name):
        if number == 1:
            token = text(value, name)
        elif number == 2:
            score = float32(value, name)
        elif number == 3:
            kind = integer(value, name)
    if not token or not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise SourceError(f"{name}: token {token!r} has the score {score} and the type {kind}", DAMAGED)
    return token, score, kind


def _trainer(data: bytes, name: str, rules: _Rules) -> None:
    for number, value in fields(data, name):
        if number == 3:
            rules.kind = integer(value, name)
        elif number == 24:
            rules.space_suffix = bool(integer(value, name))


def _normalizer(data: bytes, name: str, rules: _Rules) -> None:
    for number, value in fields(data, name):
        if number == 2:
            rules.charsmap = raw(value, name)
        elif number == 3:
            rules.space_prefix = bool(integer(value, name))
        elif number == 4:
            rules.remove_extra_spaces = bool(integer(value, name))
        elif number == 5:
            rules.escape_spaces = bool(integer(value, name))
