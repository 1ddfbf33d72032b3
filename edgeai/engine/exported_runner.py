"""Runs graphs that optimum exported. Slower than `ModelRunner`: every run copies the cache into the graph and back.

Such a graph takes the past of all layers and returns it with the new positions appended:

inputs
    input_ids                      int64 [rows, new]
    attention_mask                 int64 [rows, past + new]   0 where a row is padded
    position_ids                   int64 [rows, new]          of most families; others count the mask
    logits_from                    int64 [1]                  first new position whose logits are wanted
    past_key_values.N.key/value    float [rows, kv_heads, past, head_size]
outputs
    logits                         float [rows, new - logits_from, vocab_size]
    present.N.key/value            float [rows, kv_heads, past + new, head_size]

The arena stays the truth: what a row has is copied from it, right-aligned, so that the new tokens of rows of different
lengths begin in one column; only the new positions are written back. Rows of very different lengths run one after the
other: the copies take no more than `PADDING` times what the rows have, which the plan of memory counts on.

`logits_from` is edgeai's own addition and missing where the graph could not be changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import KVArena, granules
from edgeai.engine.prompt_reader import PromptGraph
from edgeai.engine.runner import Logits
from edgeai.errors import InvalidInput
from edgeai.onnx_session import OnnxSession

PAST, PRESENT = "past_key_values", "present"
PARTS = ("key", "value")
PADDING = 2  # times what a row has; a copy goes in, and one comes out (`ModelShape.copies`)


@dataclass(frozen=True, slots=True)
class Job:
    """New tokens behind the `length` that a slot has."""

    slot: int
    tokens: Sequence[int]
    length: int

    def shape(self) -> tuple[int, int]:
        return self.length, len(self.tokens)


class ExportedRunner:
    """A loaded graph and its KV arena. Without `padded`, rows of different lengths run one after the other.

    Raises `PackageError` when the graph cannot be loaded, `OutOfMemory` when the arena cannot be reserved.
    """

    def __init__(
        self,
        graph: Path,
        shape: ModelShape,
        settings: EngineSettings,
        context_length: int,
        _adapter_graph: Path | None = None,
        _prompt_graph: PromptGraph | None = None,
        *,
        padded: bool = True,
    ) -> None:
        self.shape = shape
        self.arena = KVArena(shape, settings.max_rows, context_length)
        self._session = OnnxSession(graph, threads=settings.threads, spin_us=settings.spin_us, cpus=settings.cpus)
        self._padded = padded
        self._inputs = frozenset(self._session.input_names)
        self._caches = [f"{layer}.{part}" for layer in range(shape.num_layers) for part in PARTS]

    def shrink(self) -> None:
        """Give the buffers of past runs back to the system, at the end of the next run."""
        self._session.shrink()

    def interrupt(self) -> None:
        """End the run that is under way, if there is one; it raises `Interrupted`."""
        self._session.interrupt()

    def recover(self) -> None:
        """Buffers come back with the runs that need them."""

    def complete(self) -> bool:
        """There is one graph only."""
        return True

    def close(self) -> None:
        """Nothing is going on between runs."""

    def enable_adapters(self) -> None:
        """Raises `InvalidInput`: exported graphs have no room for adapters."""
        raise InvalidInput("this model was exported through optimum and takes no adapters", param="model")

    def decode(self, tokens: Sequence[int], lengths: Sequence[int], _adapters: Sequence[Adapter | None] = ()) -> Logits:
        """One new token for each of the slots 0, 1, ...; returns logits [rows, vocab_size]."""
        jobs = [Job(slot, [token], length) for slot, (token, length) in enumerate(zip(tokens, lengths, strict=True))]
        return np.stack([logits[-1] for logits in self._run(jobs)])

    def verify(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], _adapters: Sequence[Adapter | None] = ()
    ) -> list[Logits]:
        """Some new tokens for each of the slots 0, 1, ...; returns the logits [len(row), vocab_size] of every one."""
        jobs = [Job(slot, row, length) for slot, (row, length) in enumerate(zip(tokens, lengths, strict=True))]
        return [logits[: len(row)] for logits, row in zip(self._run(jobs, every=True), tokens, strict=True)]

    def prefill(self, slot: int, tokens: Sequence[int], start: int, _adapter: Adapter | None = None) -> Logits:
        """A chunk of tokens at positions from `start` on, in one slot. Returns the logits [vocab_size] of its last."""
        last: Logits = self._run([Job(slot, tokens, start)])[0][-1]
        return last

    def fill(self, slot: int, tokens: Sequence[int], start: int, _adapter: Adapter | None = None) -> None:
        """Like `prefill`: exported graphs compute logits in any case."""
        self.prefill(slot, tokens, start)

    def score(self, slot: int, tokens: Sequence[int], start: int, _adapter: Adapter | None = None) -> Logits:
        """Like `prefill`, with the logits [tokens, vocab_size] of every position."""
        return self._run([Job(slot, tokens, start)], every=True)[0]

    def _run(self, jobs: Sequence[Job], *, every: bool = False) -> list[Logits]:
        """Logits [wanted, vocab_size] of each job: of `every` new position, or of the last."""
        results: dict[int, Logits] = {}
        for group in alike(jobs) if self._padded else same(jobs):
            results.update(zip((job.slot for job in group), self._run_together(group, every=every), strict=True))
        return [results[job.slot] for job in jobs]

    def _run_together(self, jobs: Sequence[Job], *, every: bool) -> list[Logits]:
        new, past = max(len(job.tokens) for job in jobs), max(job.length for job in jobs)
        inputs: dict[str, NDArray[Any]] = {**position_inputs(jobs)}
        inputs["logits_from"] = np.array([0 if every else new - 1], np.int64)
        inputs |= {f"{PAST}.{name}": self._gather(index, jobs, past) for index, name in enumerate(self._caches)}
        names = ["logits", *(f"{PRESENT}.{name}" for name in self._caches)]
        logits, *present = self._session.run(names, {k: v for k, v in inputs.items() if k in self._inputs})
        for index, values in enumerate(present):
            self._scatter(index, jobs, values[:, :, past:])
        return list(logits)

    def _gather(self, index: int, jobs: Sequence[Job], longest: int) -> NDArray[np.float32]:
        """A layer's keys or values of some slots, right-aligned: [rows, kv_heads, longest, head_size]."""
        source = self.arena.array[divmod(index, len(PARTS))]
        _, heads, _, size = source.shape
        past = np.zeros((len(jobs), heads, longest, size), np.float32)  # masked, but times zero it has to be finite
        for row, job in zip(past, jobs, strict=True):
            row[:, longest - job.length :] = source[job.slot, :, : job.length]
        return past

    def _scatter(self, index: int, jobs: Sequence[Job], values: NDArray[np.float32]) -> None:
        """Write the new positions [rows, kv_heads, new, head_size] of one layer's keys or values to the arena."""
        target = self.arena.array[divmod(index, len(PARTS))]
        for row, job in zip(values, jobs, strict=True):
            target[job.slot, :, job.length : job.length + len(job.tokens)] = row[:, : len(job.tokens)]


def same(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups that need no padding."""
    return [list(group) for _, group in itertools.groupby(sorted(jobs, key=Job.shape), Job.shape)]


def alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups in which no row is padded to more than `PADDING` times the memory that it has in the arena."""
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=Job.shape, reverse=True):
        if groups and groups[-1][0].length <= PADDING * granules(job.length + 1):
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def position_inputs(jobs: Sequence[Job]) -> dict[str, NDArray[np.int64]]:
    """Ids, mask and positions of new tokens behind right-aligned pasts; rows with fewer are padded on the right.

    Nothing looks back at that padding. It repeats the position of the row's last token: one beyond the model's last
    would be an error.
    """
    new, past = max(len(job.tokens) for job in jobs), max(job.length for job in jobs)
    before = np.array([[job.length] for job in jobs], np.int64)
    last = np.array([[len(job.tokens) - 1] for job in jobs])
    return {
        "input_ids": np.array([[*job.tokens, *[0] * (new - len(job.tokens))] for job in jobs], np.int64),
        "attention_mask": (np.arange(past + new) >= past - before).astype(np.int64),
        "position_ids": before + np.minimum(np.arange(new), last),
    }
