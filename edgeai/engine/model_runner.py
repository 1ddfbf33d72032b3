"""Runs edgeai's own graphs on rows of the KV arena. Knows memory and positions, nothing of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeai.device.profile import read_cpu, saturates_int8
from edgeai.engine.adapters import Adapter, AdapterBank, AdapterInputs, sites_of
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import KVArena
from edgeai.engine.prompt_reader import PromptGraph, PromptReader, reads_prompts
from edgeai.engine.runner import Logits
from edgeai.errors import InvalidInput, PackageError
from edgeai.onnx_session import Binding, OnnxSession


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The arrays of one binding; they are written in place before each run."""

    ids: NDArray[np.int64]  # [rows, new]
    query_seqlens: NDArray[np.int32]  # [rows]
    seqlens_k: NDArray[np.int32]  # [rows]
    total: NDArray[np.int32]  # []
    logits: Logits  # [1, n, vocab_size]
    adapters: AdapterInputs | None  # of a graph that takes adapters


class ModelRunner:
    """A loaded graph and its KV arena.

    Raises `PackageError` when the graph cannot be loaded, `OutOfMemory` when the arena cannot be reserved.
    """

    def __init__(
        self,
        graph: Path,
        shape: ModelShape,
        settings: EngineSettings,
        context_length: int,
        adapter_graph: Path | None = None,
        prompt_graph: PromptGraph | None = None,
    ) -> None:
        self.shape = shape
        self.arena = KVArena(shape, settings.max_rows, context_length)
        self._graph, self._adapter_graph = graph, adapter_graph
        self._load = partial(
            OnnxSession,
            threads=settings.threads,
            spin_us=settings.spin_us,
            cpus=settings.cpus,
            whole_scores=settings.whole_scores,
        )
        self._session = self._load(graph)
        self._bank: AdapterBank | None = None  # of decoding rows; None while the plain graph is in use
        self._bound: dict[tuple[int, int], tuple[Binding, _Inputs]] = {}  # of decoding rows, by [rows, new]
        most = settings.max_rows * (1 + settings.draft_tokens)
        self._logits: Logits = np.empty((most, shape.vocab_size), np.float32)  # of decoding rows; pages come with use
        self.prompts: PromptReader | None = None
        if prompt_graph is not None and reads_prompts(settings):
            budget, arena = settings.kv_budget_bytes, self.arena
            whole = settings.whole_scores and shape.kv_type == "float32"
            load = partial(self._load, exact_int8=saturates_int8(read_cpu()), whole_scores=whole)
            self.prompts = PromptReader(prompt_graph, load, arena, lambda: max(0, budget - arena.used_bytes))

    def shrink(self) -> None:
        """Give the buffers of past runs back to the system, at the end of the next run."""
        self._session.shrink()
        self._bound.clear()
        self._logits = np.empty_like(self._logits)
        if self.prompts is not None:
            self.prompts.give_up()

    def recover(self) -> None:
        """Memory is plentiful again: weights for prompts come back."""
        if self.prompts is not None:
            self.prompts.recover()

    def complete(self) -> bool:
        """Load the weights for prompts now, if memory allows; False if it does not."""
        return self.prompts is None or self.prompts.wait()

    def close(self) -> None:
        """Nothing is loaded any more."""
        if self.prompts is not None:
            self.prompts.close()

    def interrupt(self) -> None:
        """End the run that is under way, if there is one; it raises `Interrupted`."""
        self._session.interrupt()
        if self.prompts is not None:
            self.prompts.interrupt()

    def enable_adapters(self) -> None:
        """Change over to the graph that takes adapters, if that has not been done; the KV arena stays as it is.

        Raises `InvalidInput` where the model has no such graph, `PackageError` where it cannot be loaded.
        """
        if self._bank is not None:
            return
        if self._adapter_graph is None:
            raise InvalidInput("this model takes no adapters", "build it again", param="model")
        self._bound.clear()
        del self._session  # first, for both at once would hold the packed weights twice
        try:
            self._session = self._load(self._adapter_graph)
        except PackageError:
            self._session = self._load(self._graph)
            raise
        self._bank = AdapterBank((), sites_of(self._session))

    def decode(self, tokens: Sequence[int], lengths: Sequence[int], adapters: Sequence[Adapter | None] = ()) -> Logits:
        """One new token for each of the slots 0, 1, ...; `lengths` are the tokens each already has in the cache.

        Returns logits [rows, vocab_size], valid until the next call of this or `verify`.
        """
        rows = len(tokens)
        binding, inputs = self._bind_once(rows, 1, adapters)
        if inputs.adapters is not None:
            inputs.adapters.write(adapters or [None] * rows)
        inputs.ids[:, 0] = tokens
        inputs.seqlens_k[:] = lengths  # total minus one is what was there before
        inputs.total[...] = max(lengths) + 1
        self._session.run_bound(binding)
        rows_logits: Logits = inputs.logits[0]
        return rows_logits

    def verify(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], adapters: Sequence[Adapter | None] = ()
    ) -> list[Logits]:
        """Some new tokens for each of the slots 0, 1, ...: the newest one and a draft of what follows.

        Returns the logits [len(row), vocab_size] of every position, row by row, valid until the next call of this or
        `decode`.
        """
        counts = np.array([len(row) for row in tokens], np.int32)
        logits = self._logits_of(int(counts.sum()))
        binding, inputs = self._bind_once(len(tokens), int(counts.max()), adapters)
        real = np.arange(inputs.ids.shape[1]) < counts[:, None]  # the rest of each row is padding
        inputs.ids[real] = np.concatenate(tokens)
        inputs.query_seqlens[:] = counts
        inputs.seqlens_k[:] = np.asarray(lengths) + counts - 1
        inputs.total[...] = inputs.seqlens_k.max() + 1
        wanted = np.flatnonzero(real)
        binding.input("logit_index", wanted)
        binding.output("logits", logits[None])
        if inputs.adapters is not None:
            inputs.adapters.move(wanted // inputs.ids.shape[1])
            inputs.adapters.write(adapters or [None] * len(tokens))
        self._session.run_bound(binding)
        return np.split(logits, counts.cumsum()[:-1])

    def prefill(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> Logits:
        """A chunk of tokens at positions from `start` on, in one slot. Returns the logits [vocab_size] of its last."""
        if self._reads(len(tokens) - 1, adapter):
            self.fill(slot, tokens[:-1], start)
            tokens, start = tokens[-1:], start + len(tokens) - 1
        last: Logits = self._chunk(slot, tokens, start, adapter, every_position=False)[0]
        return last

    def fill(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> None:
        """A chunk in the middle of a prompt: like `prefill`, without logits."""
        if self.prompts is not None and self._reads(len(tokens), adapter):
            self.prompts.read(slot, tokens, start)
        else:
            self._chunk(slot, tokens, start, adapter, every_position=False)

    def _reads(self, tokens: int, adapter: Adapter | None) -> bool:
        """Whether so many tokens are a matter for the weights for prompts."""
        return self.prompts is not None and adapter is None and self.prompts.suits(tokens)

    def score(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> Logits:
        """Like `prefill`, with the logits [tokens, vocab_size] of every position; for evaluation."""
        return self._chunk(slot, tokens, start, adapter, every_position=True)

    def _chunk(
        self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None, *, every_position: bool
    ) -> Logits:
        bank = None if self._bank is None else self._bank.replaced([adapter])
        binding, inputs = self._bind(slice(slot, slot + 1), new=len(tokens), every_position=every_position, bank=bank)
        if inputs.adapters is not None:
            inputs.adapters.write([adapter])
        inputs.ids[0] = tokens
        inputs.seqlens_k[0] = start + len(tokens) - 1
        inputs.total[...] = start + len(tokens)
        self._session.run_bound(binding)
        logits: Logits = inputs.logits[0]
        return logits

    def _bind_once(self, rows: int, new: int, adapters: Sequence[Adapter | None]) -> tuple[Binding, _Inputs]:
        """A binding of the slots from 0 on that is kept: decoding comes in few shapes, again and again."""
        if self._bank is not None and not self._bank.suits(adapters):
            self._bound.clear()  # bindings hold on to the bank they were made for
            self._bank = self._bank.replaced(adapters)
        if (rows, new) not in self._bound:
            logits = self._logits_of(rows)
            self._bound[rows, new] = self._bind(slice(0, rows), new=new, bank=self._bank, logits=logits)
        return self._bound[rows, new]

    def _logits_of(self, positions: int) -> Logits:
        """Where decoding rows get their logits [positions, vocab_size]: one place for runs of all shapes."""
        if len(self._logits) < positions:
            self._bound.clear()  # bindings hold on to where they write
            self._logits = np.empty((positions, self.shape.vocab_size), np.float32)
        return self._logits[:positions]

    def _bind(
        self,
        slots: slice,
        *,
        new: int,
        every_position: bool = False,
        bank: AdapterBank | None = None,
        logits: Logits | None = None,
    ) -> tuple[Binding, _Inputs]:
        rows = slots.stop - slots.start
        wanted = np.arange(rows * new) if every_position else np.arange(1, rows + 1) * new - 1
        if logits is None:
            logits = np.empty((len(wanted), self.shape.vocab_size), np.float32)
        binding = self._session.binding()
        inputs = _Inputs(
            np.zeros((rows, new), np.int64),
            np.full(rows, new, np.int32),
            np.zeros(rows, np.int32),
            np.zeros((), np.int32),
            logits[None],
            None if bank is None else AdapterInputs(binding, bank, rows, wanted // new),
        )
        binding.input("input_ids", inputs.ids)
        binding.input("seqlens_k", inputs.seqlens_k)
        binding.input("query_seqlens", inputs.query_seqlens)
        binding.input("total_sequence_length", inputs.total)
        binding.input("logit_index", wanted.astype(np.int64))
        binding.output("logits", inputs.logits)
        self.arena.bind(binding, slots)
        return binding, inputs
