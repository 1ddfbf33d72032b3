"""Runs a freshly written graph and compares it with a plain numpy forward pass of the weights it was made from.

The graph is run as a server runs it: a prompt in two chunks, then token by token, over one cache. What comes out is
compared at every position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.registry import reference_logits
from edgeai.device.profile import read_cpu, saturates_int8
from edgeai.errors import ValidationFailed
from edgeai.onnx_session import OnnxSession
from edgeai.package.manifest import Quality

Logits = NDArray[np.float32]

ROWS_AT_ONCE = 32  # positions compared at a time: float64 copies of all logits would take most of a build's memory
REFERENCE = "numpy float32 forward pass of the source's weights"
GRAPH_LIMIT = 0.01  # nats per token between a graph and its own weights: what int8 activations cost, and no more

TEXT = """\
The water in the well was low that year, and every household sent one person before sunrise. Amina carried two
yellow cans, 20 litres each, and counted her steps: 1, 2, 3 ... 412 to the gate. "You are early," said the guard.

Boil water for at least one minute before drinking it. If you cannot boil it, add 2 drops of bleach per litre, stir,
and wait thirty minutes. Keep the container covered, and wash your hands with soap.

def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

Question: A school has 14 classrooms with 36 pupils each. How many pupils are there in all?
Answer: 14 times 36 is 504, so the school has 504 pupils.
"""


class GraphRun:
    """A written graph and one row of a KV cache of its own, of whichever type the graph has."""

    def __init__(self, graph: Path, config: DecoderConfig) -> None:
        self._session = OnnxSession(graph, threads=2, exact_int8=saturates_int8(read_cpu()))
        self._config = config

    def logits(self, ids: Sequence[int], steps: Sequence[int], cached: NDArray[Any] | None = None) -> Logits:
        """Logits [tokens, vocab_size] of `ids`, computed in consecutive runs of `steps` tokens.

        With what is `cached` of the first ones, [layers, 2, kv_heads, tokens, head_size], of the others only.
        """
        return self._run(ids, steps, np.arange, cached)[0]

    def cached(self, ids: Sequence[int]) -> NDArray[Any]:
        """Keys and values [layers, 2, kv_heads, tokens, head_size] that `ids` leave in the cache."""
        return self._run(ids, [len(ids)], lambda _: np.empty(0, np.int64))[1]

    def _run(
        self,
        ids: Sequence[int],
        steps: Sequence[int],
        wanted: Callable[[int], NDArray[np.int64]],
        cached: NDArray[Any] | None = None,
    ) -> tuple[Logits, NDArray[Any]]:
        config, done, logits = self._config, 0, list[Logits]()
        shape = (config.num_layers, 2, 1, config.num_kv_heads, len(ids), config.head_size)
        cache = np.zeros(shape, self._session.input_types["past.0.key"])
        if cached is not None:
            done = cached.shape[3]
            cache[:, :, 0, :, :done] = cached
        for new in steps:
            index = wanted(new)
            logits.append(np.empty((1, len(index), config.vocab_size), np.float32))
            binding = self._session.binding()
            binding.input("input_ids", np.array([ids[done : done + new]], np.int64))
            binding.input("seqlens_k", np.array([done + new - 1], np.int32))
            binding.input("query_seqlens", np.array([new], np.int32))
            binding.input("total_sequence_length", np.array(done + new, np.int32))
            if "logits" in self._session.output_names:  # a graph that reads prompts gives none
                binding.input("logit_index", index)
                binding.output("logits", logits[-1])
            for layer, parts in enumerate(cache):
                for part, values in zip(("key", "value"), parts, strict=True):
                    binding.in_place(f"past.{layer}.{part}", f"present.{layer}.{part}", values)
            self._session.run_bound(binding)
            done += new
        return np.concatenate(logits, axis=1)[0], cache[:, :, 0]


def run_graph(graph: Path, config: DecoderConfig, ids: Sequence[int], steps: Sequence[int]) -> Logits:
    """Logits [tokens, vocab_size] of `ids`, computed in consecutive runs of `steps` tokens over one KV cache."""
    return GraphRun(graph, config).logits(ids, steps)


def chunked(tokens: int) -> list[int]:
    """Run lengths for `tokens` tokens: two uneven chunks, then eight single tokens."""
    singles = min(8, tokens // 4)
    first = (tokens - singles) * 2 // 3
    return [size for size in (first, tokens - singles - first, *[1] * singles) if size]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far logits [tokens, vocab_size] are from a reference's."""

    mean_kl: float
    p99_kl: float
    max_kl: float
    max_difference: float
    agreement: float
    perplexity: float
    reference_perplexity: float

    def quality(self, reference: str, tokens: int) -> Quality:
        """For a manifest: measured over `tokens` tokens against `reference`."""
        return Quality(
            reference=reference,
            tokens=tokens,
            mean_kl=significant(self.mean_kl),
            p99_kl=significant(self.p99_kl),
            max_kl=significant(self.max_kl),
            max_logit_difference=significant(self.max_difference),
            top_token_agreement=significant(self.agreement),
            perplexity=significant(self.perplexity),
            reference_perplexity=significant(self.reference_perplexity),
        )


def compare(reference: Logits, logits: Logits, ids: Sequence[int]) -> Comparison:
    """KL divergence (nats) of `logits` from `reference`, agreement of the likeliest tokens, perplexities on `ids`."""
    pieces = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(ids), ROWS_AT_ONCE)]
    kl, losses, reference_losses = [], [], []
    for piece in pieces:
        expected, actual = log_softmax(reference[piece]), log_softmax(logits[piece])
        kl.append((np.exp(expected) * (expected - actual)).sum(axis=-1))
        following = np.asarray(ids[piece.start + 1 : piece.stop + 1])
        at = (np.arange(len(following)), following)
        losses.append(-actual[at])
        reference_losses.append(-expected[at])
    divergence = np.concatenate(kl)
    return Comparison(
        mean_kl=float(divergence.mean()),
        p99_kl=float(np.quantile(divergence, 0.99)),
        max_kl=float(divergence.max()),
        max_difference=max(float(np.abs(reference[piece] - logits[piece]).max()) for piece in pieces),
        agreement=float((reference.argmax(-1) == logits.argmax(-1)).mean()),
        perplexity=float(np.exp(np.concatenate(losses).mean())),
        reference_perplexity=float(np.exp(np.concatenate(reference_losses).mean())),
    )


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Natural-log probabilities along the last axis."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def measure(
    graph: Path,
    config: DecoderConfig,
    ids: Sequence[int],
    *,
    original: LoadTensor,
    stored: LoadTensor,
    requantized: bool,
    limit: float = GRAPH_LIMIT,
) -> Quality:
    """Compare the graph with the source, and with the weights it stores where these are not the source's.

    Raises `ValidationFailed` when the graph is further than `limit` (nats per token) from what its own weights say.
    """
    logits = run_graph(graph, config, ids, chunked(len(ids)))
    against_source = compare(reference_logits(config, original, list(ids)), logits, ids)
    against_stored = against_source
    if requantized:
        against_stored = compare(reference_logits(config, stored, list(ids)), logits, ids)
    if not against_stored.mean_kl <= limit:  # written so that NaN fails
        raise ValidationFailed(
            f"the graph is {against_stored.mean_kl:.4g} nats per token away from its own weights, more than"
            f" {limit}; nothing was published",
            "this is an error of the builder or of onnxruntime on this machine; please report it",
        )
    return against_source.quality(REFERENCE, len(ids))


def significant(value: float) -> float:
    """Four digits, which is more than such a measurement means."""
    return float(f"{value:.4g}")
