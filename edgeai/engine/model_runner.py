"""Runs the graph on rows of the KV arena. Knows memory and positions, nothing of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import KVArena
from edgeai.onnx_session import Binding, OnnxSession

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The arrays of one binding; they are written in place before each run."""

    ids: NDArray[np.int64]  # [rows, new]
    query_seqlens: NDArray[np.int32]  # [rows]
    seqlens_k: NDArray[np.int32]  # [rows]
    total: NDArray[np.int32]  # []
    logits: Logits  # [1, n, vocab_size]


class ModelRunner:
    """A loaded graph and its KV arena.

    Raises `PackageError` when the graph cannot be loaded, `OutOfMemory` when the arena cannot be reserved.
    """

    def __init__(self, graph: Path, shape: ModelShape, settings: EngineSettings, context_length: int) -> None:
        self.shape = shape
        self.arena = KVArena(shape, settings.max_rows, context_length)
        self._session = OnnxSession(graph, threads=settings.threads)
        self._bound: dict[tuple[int, int], tuple[Binding, _Inputs]] = {}  # of decoding rows, by [rows, new]
        self._logits: Logits = np.empty((0, shape.vocab_size), np.float32)  # of the newest verification

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One new token for each of the slots 0, 1, ...; `lengths` are the tokens each already has in the cache.

        Returns logits [rows, vocab_size], valid until the next call with as many rows.
        """
        rows = len(tokens)
        binding, inputs = self._bind_once(rows, 1)
        inputs.ids[:, 0] = tokens
        inputs.seqlens_k[:] = lengths  # total minus one is what was there before
        inputs.total[...] = max(lengths) + 1
        self._session.run_bound(binding)
        rows_logits: Logits = inputs.logits[0]
        return rows_logits

    def verify(self, tokens: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Logits]:
        """Some new tokens for each of the slots 0, 1, ...: the newest one and a draft of what follows.

        Returns the logits [len(row), vocab_size] of every position, row by row, valid until the next call.
        """
        counts = np.array([len(row) for row in tokens], np.int32)
        binding, inputs = self._bind_once(len(tokens), int(counts.max()))
        real = np.arange(inputs.ids.shape[1]) < counts[:, None]  # the rest of each row is padding
        inputs.ids[real] = np.concatenate(tokens)
        inputs.query_seqlens[:] = counts
        inputs.seqlens_k[:] = np.asarray(lengths) + counts - 1
        inputs.total[...] = inputs.seqlens_k.max() + 1
        wanted = np.flatnonzero(real)
        if len(self._logits) < len(wanted):
            self._logits = np.empty((len(wanted), self.shape.vocab_size), np.float32)
        binding.input("logit_index", wanted)
        binding.output("logits", self._logits[None, : len(wanted)])
        self._session.run_bound(binding)
        return np.split(self._logits[: len(wanted)], counts.cumsum()[:-1])

    def prefill(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """A chunk of tokens at positions from `start` on, in one slot. Returns the logits [vocab_size] of its last."""
        last: Logits = self._chunk(slot, tokens, start, every_position=False)[0]
        return last

    def score(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """Like `prefill`, with the logits [tokens, vocab_size] of every position; for evaluation."""
        return self._chunk(slot, tokens, start, every_position=True)

    def _chunk(self, slot: int, tokens: Sequence[int], start: int, *, every_position: bool) -> Logits:
        binding, inputs = self._bind(slice(slot, slot + 1), new=len(tokens), every_position=every_position)
        inputs.ids[0] = tokens
        inputs.seqlens_k[0] = start + len(tokens) - 1
        inputs.total[...] = start + len(tokens)
        self._session.run_bound(binding)
        logits: Logits = inputs.logits[0]
        return logits

    def _bind_once(self, rows: int, new: int) -> tuple[Binding, _Inputs]:
        """A binding of the slots from 0 on that is kept: decoding comes in few shapes, again and again."""
        if (rows, new) not in self._bound:
            self._bound[rows, new] = self._bind(slice(0, rows), new=new)
        return self._bound[rows, new]

    def _bind(self, slots: slice, *, new: int, every_position: bool = False) -> tuple[Binding, _Inputs]:
        rows = slots.stop - slots.start
        wanted = np.arange(rows * new) if every_position else np.arange(1, rows + 1) * new - 1
        inputs = _Inputs(
            np.zeros((rows, new), np.int64),
            np.full(rows, new, np.int32),
            np.zeros(rows, np.int32),
            np.zeros((), np.int32),
            np.empty((1, len(wanted), self.shape.vocab_size), np.float32),
        )
        binding = self._session.binding()
        binding.input("input_ids", inputs.ids)
        binding.input("seqlens_k", inputs.seqlens_k)
        binding.input("query_seqlens", inputs.query_seqlens)
        binding.input("total_sequence_length", inputs.total)
        binding.input("logit_index", wanted.astype(np.int64))
        binding.output("logits", inputs.logits)
        for layer, parts in enumerate(self.arena.array):
            for part, values in zip(("key", "value"), parts, strict=True):
                binding.in_place(f"past.{layer}.{part}", f"present.{layer}.{part}", values[slots])
        return binding, inputs
