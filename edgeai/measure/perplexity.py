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


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood over `tokens` scored tokens."""

    perplexity: float
    tokens: int
    chunks: int


def perplexity(model: Model, text: str, *, context: int = 512, progress: Progress = silent) -> Perplexity:
    """Score `text`. The engine must be idle.

    Raises `InvalidInput` when the text is shorter than one chunk, or a chunk longer than the model's context.
    """
    tokens = model.manifest.tokens
    ids = model.tokenizer.encode(text, add_bos=tokens.add_bos)
    if not 4 <= context <= model.context_length:
        raise InvalidInput(f"context is {context}; it has to be between 4 and {model.context_length}", param="context")
    chunks = len(ids) // context
    if not chunks:
        raise InvalidInput(f"the text has {len(ids)} tokens, less than one chunk of {context}", "use a longer text")
    bos = tokens.bos if tokens.add_bos else None
    total, count = 0.0, 0
    for number in range(chunks):
        chunk = ids[number * context : (number + 1) * context]
        losses = chunk_losses(model.engine.runner, chunk if bos is None else [bos, *chunk[1:]])
        total += float(losses.sum())
        count += len(losses)
        progress("evaluate", number + 1, chunks)
    return Perplexity(math.exp(total / count), count, chunks)


def chunk_losses(runner: Runner, ids: Sequence[int]) -> NDArray[np.float64]:
    """Negative log-likelihoods of the second half of `ids`, each given all before it."""
    first = len(ids) // 2
    losses = []
    for start, logits in _scored(runner, ids):
        for position in range(max(first, start), min(start + len(logits), len(ids) - 1)):
            row = logits[position - start].astype(np.float64)
            peak = row.max()
            losses.append(peak + math.log(np.exp(row - peak).sum()) - row[ids[position + 1]])
    return np.array(losses)


def _scored(runner: Runner, ids: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Logits of consecutive pieces of `ids`, with the position each starts at."""
    runner.arena.grow(0, len(ids))
    try:
        for start in range(0, len(ids), PIECE):
            yield start, runner.score(0, ids[start : start + PIECE], start)
    finally:
        runner.arena.release(0)
