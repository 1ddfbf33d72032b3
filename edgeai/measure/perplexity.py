"""Perplexity by llama.cpp's protocol, so that figures can be compared.

The text is cut into chunks of `context` tokens. Each is read from an empty cache, its first token replaced by BOS where
the model wants one, and the second half of its positions is scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.runner import Runner
from edgeai.errors import InvalidInput
from edgeai.model import Model
from edgeai.progress import Progress, silent

PIECE = 64  # positions whose logits are in memory at once
FILLED = 128  # positions without logits that are read at once


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood over `tokens` scored tokens."""

    perplexity: float
    tokens: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far one model's probabilities of the next token are from a reference's, over the same scored tokens: the
    Kullback-Leibler divergence in nats, and how often both have the same likeliest token.
    """

    measured: Perplexity
    reference: Perplexity
    mean_kl: float
    p99_kl: float
    max_kl: float
    top_token_agreement: float


def perplexity(model: Model, text: str, *, context: int = 512, progress: Progress = silent) -> Perplexity:
    """Score `text`. The engine must be idle.

    Raises `InvalidInput` when the text is shorter than one chunk, or a chunk longer than the model's context.
    """
    chunks = _chunks(model, text, context)
    losses = []
    for number, chunk in enumerate(chunks, 1):
        losses.append(chunk_losses(model.engine.runner, chunk))
        progress("evaluate", number, len(chunks))
    return _perplexity(np.concatenate(losses), len(chunks))


def divergence(
    model: Model, reference: Model, text: str, *, context: int = 512, progress: Progress = silent
) -> Divergence:
    """Score `text` with both, which have the same tokenizer. Both engines must be idle. Raises as `perplexity` does."""
    chunks = _chunks(model, text, context)
    found = []  # for each token: both losses, the divergence, and whether both have the same likeliest one
    for number, chunk in enumerate(chunks, 1):
        sides = (_log_probabilities(each.engine.runner, chunk) for each in (model, reference))
        for (token, measured), (_, expected) in zip(*sides, strict=True):
            apart = float((np.exp(expected) * (expected - measured)).sum())
            found.append((-measured[token], -expected[token], apart, measured.argmax() == expected.argmax()))
        progress("evaluate", number, len(chunks))
    losses, expected_losses, apart_by, same = np.array(found, np.float64).T
    return Divergence(
        _perplexity(losses, len(chunks)),
        _perplexity(expected_losses, len(chunks)),
        mean_kl=float(apart_by.mean()),
        p99_kl=float(np.quantile(apart_by, 0.99)),
        max_kl=float(apart_by.max()),
        top_token_agreement=float(same.mean()),
    )


def chunk_losses(runner: Runner, ids: Sequence[int]) -> NDArray[np.float64]:
    """Negative log-likelihoods of the second half of `ids`, each given all before it."""
    return np.array([-row[token] for token, row in _log_probabilities(runner, ids)])


def _chunks(model: Model, text: str, context: int) -> list[list[int]]:
    """The text in chunks of `context` token ids, BOS in front where the model wants it, without what is left over."""
    tokens = model.manifest.tokens
    ids = model.tokenizer.encode(text, add_bos=tokens.add_bos)
    if not 4 <= context <= model.context_length:
        raise InvalidInput(f"context is {context}; it has to be between 4 and {model.context_length}", param="context")
    if len(ids) < context:
        raise InvalidInput(f"the text has {len(ids)} tokens, less than one chunk of {context}", "use a longer text")
    chunks = [ids[start : start + context] for start in range(0, len(ids) - context + 1, context)]
    bos = tokens.bos if tokens.add_bos else None
    return chunks if bos is None else [[bos, *chunk[1:]] for chunk in chunks]


def _perplexity(losses: NDArray[np.float64], chunks: int) -> Perplexity:
    return Perplexity(math.exp(float(losses.mean())), len(losses), chunks)


def _log_probabilities(runner: Runner, ids: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """For the second half of `ids`: each token, and the log probabilities of all tokens at its place."""
    first = len(ids) // 2
    for start, logits in _scored(runner, ids, first):
        for position in range(start, min(start + len(logits), len(ids) - 1)):
            row = logits[position - start].astype(np.float64)
            peak = row.max()
            yield ids[position + 1], row - peak - math.log(np.exp(row - peak).sum())


def _scored(runner: Runner, ids: Sequence[int], first: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Logits of consecutive pieces of `ids` from position `first` on, with the position each starts at.

    What is before it is read as prompts are.
    """
    runner.arena.grow(0, len(ids))
    try:
        for start in range(0, first, FILLED):
            runner.fill(0, ids[start : min(start + FILLED, first)], start)
        for start in range(first, len(ids), PIECE):
            yield start, runner.score(0, ids[start : start + PIECE], start)
    finally:
        runner.arena.release(0)
