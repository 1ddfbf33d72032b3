"""Choosing a token from logits: grammar, bias, penalties, temperature, top-k, top-p, min-p, and a draw that can be
repeated.

The draw for position i of a request depends on its seed and on i alone (Philox, Salmon et al. 2011, is a function of
key and counter), so batching, caching and preemption cannot change a sampled text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.constraint import Mask
from edgeai.engine.request import SamplingParams, TokenLogprob
from edgeai.engine.sequence import Sequence

Logits = NDArray[np.float32]  # [vocab_size]
SHORTLIST = 1024  # candidates that are sorted first; the rest only when top-p reaches past them


def sample(logits: Logits, sequence: Sequence, mask: Mask | None = None) -> int:
    """The next token of a sequence, one that `mask` allows. `logits` is not changed."""
    params = sequence.params
    adjusted = adjust(logits, sequence)
    if mask is not None:
        adjusted = adjusted.copy()
        np.copyto(adjusted, -np.inf, where=~mask)  # what bias and penalties did to the others is of no account
    if params.temperature == 0 or params.top_k == 1:
        return int(adjusted.argmax())
    scaled = adjusted.astype(np.float64)
    scaled -= scaled.max()  # from the likeliest down: the tiniest temperature then gives -inf, never NaN
    with np.errstate(over="ignore"):
        scaled /= params.temperature
    tokens, weights = candidates(scaled, params)
    bounds = np.cumsum(weights)
    point = uniform(sequence.seed, len(sequence.tokens)) * bounds[-1]
    return int(tokens[min(int(np.searchsorted(bounds, point, side="right")), len(tokens) - 1)])


def adjust(logits: Logits, sequence: Sequence) -> Logits:
    """Logits after bias and penalties; the same array when there are none."""
    params = sequence.params
    if params.logit_bias:
        logits = logits.copy()
        logits[list(params.logit_bias)] += np.fromiter(params.logit_bias.values(), np.float32)
    if params.repetition_penalty != 1.0:
        logits = logits.copy()
        seen = np.unique(sequence.tokens)
        values = logits[seen]
        penalty = np.float32(params.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    if (params.presence_penalty or params.frequency_penalty) and sequence.output:
        logits = logits.copy()
        seen, counts = np.unique(sequence.output, return_counts=True)
        logits[seen] -= (params.presence_penalty + params.frequency_penalty * counts).astype(np.float32)
    return logits


def candidates(scaled: NDArray[np.float64], params: SamplingParams) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Tokens that may be drawn, the likeliest first, with their weights (not normalized)."""
    weights = np.exp(scaled - scaled.max())
    limit = min(params.top_k, len(weights)) if params.top_k else len(weights)
    if limit == len(weights) and params.top_p >= 1.0:
        tokens = np.arange(len(weights))  # nothing to cut by rank: order does not matter
    else:
        tokens = _by_rank(weights, limit, params.top_p)
    if params.min_p > 0:
        tokens = tokens[weights[tokens] >= params.min_p]  # weights are relative to the likeliest, which has 1
    return tokens, weights[tokens]


def _by_rank(weights: NDArray[np.float64], limit: int, top_p: float) -> NDArray[np.intp]:
    """The `limit` likeliest tokens, cut where their share of all `limit` reaches `top_p`; ties go to the lower id."""
    if limit < len(weights):
        ranked = _top(weights, limit)
        total = weights[ranked].sum()
    else:
        ranked = _top(weights, SHORTLIST)
        total = weights.sum()
        if weights[ranked].sum() < top_p * total:
            ranked = _top(weights, limit)  # the shortlist was too short
    if top_p >= 1.0:
        return ranked
    reached = int(np.searchsorted(np.cumsum(weights[ranked]), top_p * total))
    return ranked[: reached + 1]


def _top(weights: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    if count >= len(weights):
        return np.argsort(-weights, kind="stable")
    smallest = np.partition(weights, len(weights) - count)[len(weights) - count]
    chosen = np.flatnonzero(weights >= smallest)
    return chosen[np.argsort(-weights[chosen], kind="stable")][:count]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a pure function of its arguments."""
    return float(np.random.Generator(np.random.Philox(key=seed % 2**64, counter=position)).random())


def logprobs(logits: Logits, token: int, count: int) -> tuple[TokenLogprob, tuple[TokenLogprob, ...]]:
    """Natural-log probability of `token`, and of the `count` likeliest tokens, under the unmodified logits."""
    values = logits.astype(np.float64)
    peak = values.max()
    values -= peak + np.log(np.exp(values - peak).sum())
    ranked = _top(values, count) if count else np.empty(0, np.intp)
    return TokenLogprob(token, float(values[token])), tuple(TokenLogprob(int(i), float(values[i])) for i in ranked)
