"""Choosing a token from logits: grammar, bias, penalties, temperature, top-k, top-p, min-p, and a draw that can be
repeated.

The draw for position i of a request depends on its seed and on i alone (Philox, Salmon et al. 2011, is a function of
key and counter), so batching, caching and preemption cannot change a sampled text.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.constraint import Mask
from edgeai.engine.request import SamplingParams, TokenLogprob
from edgeai.engine.sequence import Sequence

Logits = NDArray[np.float32]  # [vocab_size]
WORD = 2**64 - 1
PHILOX_ROUNDS = 10  # of Philox4x64, with the multipliers and key steps of Random123
PHILOX_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
PHILOX_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
FEW = 4096  # allowed tokens up to which only their logits are looked at
NEGLIGIBLE = 50.0  # nats below the likeliest: of all the tokens of a vocabulary together, less than a double can tell
LIKELY = 1e-4  # as likely as the likeliest token, times this
SHORTLIST = 1024  # candidates that are sorted first; the rest only when top-p reaches past them


def sample(logits: Logits, sequence: Sequence, mask: Mask | None = None) -> int:
    """The next token of a sequence, one that `mask` allows. `logits` is not changed."""
    if mask is None:
        return _draw(adjust(logits, sequence), sequence)
    if np.count_nonzero(mask) <= FEW:
        allowed = np.flatnonzero(mask)
        return int(allowed[0 if len(allowed) == 1 else _draw(adjust(logits[allowed], sequence, allowed), sequence)])
    adjusted = adjust(logits, sequence)
    if _is_greedy(sequence.params):
        best = int(adjusted.argmax())
        if mask[best]:
            return best
    return _draw(np.where(mask, adjusted, np.float32(-np.inf)), sequence)


def _is_greedy(params: SamplingParams) -> bool:
    return params.temperature == 0 or params.top_k == 1


def _draw(adjusted: Logits, sequence: Sequence) -> int:
    """Which of some logits is chosen."""
    params = sequence.params
    if _is_greedy(params):
        return int(adjusted.argmax())
    peak = adjusted.max()
    with np.errstate(over="ignore"):
        likely = np.flatnonzero(adjusted >= peak - np.float32(NEGLIGIBLE * params.temperature))
        scaled = adjusted[likely].astype(np.float64)
        scaled -= peak  # from the likeliest down: the tiniest temperature then gives -inf, never NaN
        scaled /= params.temperature
    tokens, weights = candidates(scaled, params)
    bounds = np.cumsum(weights)
    point = uniform(sequence.seed, len(sequence.tokens)) * bounds[-1]
    return int(likely[tokens[min(int(np.searchsorted(bounds, point, side="right")), len(tokens) - 1)]])


def adjust(logits: Logits, sequence: Sequence, ids: NDArray[np.intp] | None = None) -> Logits:
    """Logits after bias and penalties; the same array when there are none. They are those of all tokens, or of `ids`,
    which ascend.
    """
    params = sequence.params
    if params.logit_bias:
        logits = logits.copy()
        biased, bias = np.fromiter(params.logit_bias, np.intp), np.fromiter(params.logit_bias.values(), np.float32)
        places, known = _places(biased, ids)
        logits[places] += bias[known]
    if params.repetition_penalty != 1.0:
        logits = logits.copy()
        places, _ = _places(np.unique(sequence.tokens), ids)
        values = logits[places]
        penalty = np.float32(params.repetition_penalty)
        logits[places] = np.where(values > 0, values / penalty, values * penalty)
    if (params.presence_penalty or params.frequency_penalty) and sequence.output:
        logits = logits.copy()
        seen, counts = np.unique(sequence.output, return_counts=True)
        places, known = _places(seen, ids)
        logits[places] -= (params.presence_penalty + params.frequency_penalty * counts[known]).astype(np.float32)
    return logits


def _places(tokens: NDArray[np.intp], ids: NDArray[np.intp] | None) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where tokens stand in `ids`, and which of them do."""
    if ids is None:
        return tokens, np.ones(len(tokens), np.bool_)
    places = np.searchsorted(ids, tokens)
    known = np.take(ids, places, mode="clip") == tokens
    return places[known], known


def candidates(scaled: NDArray[np.float64], params: SamplingParams) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Tokens that may be drawn, the likeliest first, with their weights (not normalized)."""
    weights = scaled - scaled.max()
    np.exp(weights, out=weights)
    limit = min(params.top_k, len(weights)) if params.top_k else len(weights)
    if not params.top_k and params.top_p >= 1.0:
        tokens = np.arange(len(weights))  # nothing to cut by rank: order does not matter
    else:
        tokens = _by_rank(weights, limit, params.top_p)
    if params.min_p > 0:
        tokens = tokens[weights[tokens] >= params.min_p]  # weights are relative to the likeliest, which has 1
    return tokens, weights[tokens]


def _by_rank(weights: NDArray[np.float64], limit: int, top_p: float) -> NDArray[np.intp]:
    """The `limit` likeliest tokens, cut where their share of all `limit` reaches `top_p`; ties go to the lower id."""
    total = weights.sum()
    for ranked in _rankings(weights, min(limit, SHORTLIST), limit):
        if len(ranked) >= limit or (limit == len(weights) and weights[ranked].sum() >= top_p * total):
            break
    if limit < len(weights):
        ranked = ranked[:limit]
        total = weights[ranked].sum()
    if top_p >= 1.0:
        return ranked
    reached = int(np.searchsorted(np.cumsum(weights[ranked]), top_p * total))
    return ranked[: reached + 1]


def _rankings(weights: NDArray[np.float64], *counts: int) -> Iterator[NDArray[np.intp]]:
    """The likeliest tokens by rank: the likely ones where they are few, which is most often enough; then so many."""
    likely = np.flatnonzero(weights >= LIKELY)
    if len(likely) <= SHORTLIST:
        yield likely[np.argsort(-weights[likely], kind="stable")]
    for count in counts:
        yield _top(weights, count)


def _top(weights: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    if count >= len(weights):
        return np.argsort(-weights, kind="stable")
    smallest = np.partition(weights, len(weights) - count)[len(weights) - count]
    chosen = np.flatnonzero(weights >= smallest)
    return chosen[np.argsort(-weights[chosen], kind="stable")][:count]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a pure function of its arguments: what numpy's Philox with this key gives first.

    Importing numpy's generators takes as long as a short prompt.
    """
    key, words = [seed % 2**64, 0], [position + 1, 0, 0, 0]
    for _ in range(PHILOX_ROUNDS):
        left, right = PHILOX_MULTIPLIERS[0] * words[0], PHILOX_MULTIPLIERS[1] * words[2]
        words = [right >> 64 ^ words[1] ^ key[0], right & WORD, left >> 64 ^ words[3] ^ key[1], left & WORD]
        key = [part + weyl & WORD for part, weyl in zip(key, PHILOX_WEYL, strict=True)]
    return (words[0] >> 11) / 2**53  # as many bits as a float64 has


def logprobs(logits: Logits, token: int, count: int) -> tuple[TokenLogprob, tuple[TokenLogprob, ...]]:
    """Natural-log probability of `token`, and of the `count` likeliest tokens, under the unmodified logits."""
    values = logits.astype(np.float64)
    peak = values.max()
    values -= peak + np.log(np.exp(values - peak).sum())
    ranked = _top(values, count) if count else np.empty(0, np.intp)
    return TokenLogprob(token, float(values[token])), tuple(TokenLogprob(int(i), float(values[i])) for i in ranked)
