"""SentencePiece vocabularies as a tokenizer.json: BPE by scores, and unigram.

What SentencePiece does to text (normalizer.cc, bpe_model.cc, unigram_model.cc) is written in the words of the
`tokenizers` library. Merges of a BPE model are those pairs of tokens that make a token, best score first. Two
departures, both so that plain text can never become a control token: those take part in no merge, and have a score
in a unigram model that loses against every other spelling.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeai.sources.sentencepiece_charsmap import composes
from edgeai.sources.tokenizer_json import NORMAL, UNUSED, USER_DEFINED, Vocabulary, bpe_model, tokenizer_json

SPACE = "\u2581"
SPELLED = (NORMAL, USER_DEFINED, UNUSED)  # types that ordinary text may become
NEVER = -1e6  # the score of what it may not


@dataclass(frozen=True, slots=True)
class SentencePiece:
    """A SentencePiece model: vocabulary, a score for each token, and what is done to text first.

    `charsmap` is the precompiled table of the normalizer, empty for identity.
    """

    vocabulary: Vocabulary
    scores: Sequence[float]
    add_space_prefix: bool = True
    remove_extra_spaces: bool = False
    charsmap: bytes = b""


def sentencepiece_bpe(model: SentencePiece) -> dict[str, Any]:
    """The tokenizer.json of a BPE model (Llama 2, Mistral, Gemma, Phi-3, MiniCPM, ERNIE)."""
    vocabulary = model.vocabulary
    return tokenizer_json(
        vocabulary,
        bpe_model(vocabulary, _merges(model), **_bpe_options(vocabulary)),
        normalizer=_normalizer(model),
        decoder=_decoder(model),
    )


def sentencepiece_unigram(model: SentencePiece) -> dict[str, Any]:
    """The tokenizer.json of a unigram model (T5, XLM-R and the E5 family)."""
    vocabulary = model.vocabulary
    unigram = {
        "type": "Unigram",
        "unk_id": vocabulary.unknown,
        "vocab": [[token, score] for token, score in zip(vocabulary.tokens, _unigram_scores(model), strict=True)],
        "byte_fallback": vocabulary.has_bytes,
    }
    return tokenizer_json(vocabulary, unigram, normalizer=_normalizer(model), decoder=_decoder(model))


def sentencepiece_merges(vocabulary: Vocabulary, merges: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The tokenizer.json of a BPE model in SentencePiece's spelling whose merges are known (Gemma 4).

    Runs of newlines are words of their own, and those that are tokens need no merges.
    """
    model = SentencePiece(vocabulary, [], add_space_prefix=False)
    lines = {"type": "Split", "pattern": {"Regex": r"[^\n]+|\n+"}, "behavior": "Isolated", "invert": False}
    return tokenizer_json(
        vocabulary,
        bpe_model(vocabulary, merges, **_bpe_options(vocabulary)),
        normalizer=_normalizer(model),
        pre_tokenizer=lines,
        decoder=_decoder(model),
    )


def _bpe_options(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "unk_token": None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown],
        "fuse_unk": True,
        "byte_fallback": vocabulary.has_bytes,
    }


def _merges(model: SentencePiece) -> list[tuple[str, str]]:
    """Pairs in order of rank: of the token with the best score first; equal scores in order of ids."""
    vocabulary = model.vocabulary
    usable = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in SPELLED
    }
    ordered = sorted((-model.scores[index], index, token) for token, index in usable.items())
    return [pair for _, _, token in ordered for pair in _splits(token, usable)]


def _splits(token: str, usable: dict[str, int]) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(token)):
        left, right = token[:cut], token[cut:]
        if left in usable and right in usable:
            yield left, right


def _unigram_scores(model: SentencePiece) -> Iterator[float]:
    """Scores as SentencePiece uses them: user-defined tokens always win, control tokens never."""
    for kind, score in zip(model.vocabulary.types, model.scores, strict=True):
        yield 0.0 if kind == USER_DEFINED else score if kind in SPELLED else NEVER


def _normalizer(model: SentencePiece) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if composes(model.charsmap):
        # The library looks for a letter with all its accents at once and replaces it by what the first of them stand
        # for, so that accents get lost. Composing beforehand leaves it nothing to lose.
        steps.append({"type": "NFC"})
    if model.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode("ascii")})
    if model.remove_extra_spaces:
        steps += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if model.add_space_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return {"type": "Sequence", "normalizers": [*steps, _replace({"String": " "}, SPACE)]}


def _decoder(model: SentencePiece) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace({"String": SPACE}, " ")]
    steps += [{"type": "ByteFallback"}] if model.vocabulary.has_bytes else []
    steps.append({"type": "Fuse"})
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if model.add_space_prefix else []
    return {"type": "Sequence", "decoders": steps}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
