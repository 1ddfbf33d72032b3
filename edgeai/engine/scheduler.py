"""Decides what the next step computes: continuous batching, chunked prefill, preemption by recompute.

Rows 0 to d-1 of the arena decode, one token each; at most one sequence at a time reads its prompt, in a row behind
them. Memory is reserved before anything is computed: the prefix cache gives way first, then the youngest sequence,
which starts again later from the tokens it has.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from edgeai.engine.adapters import distinct
from edgeai.engine.chunking import ChunkSizer
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.governor import Limits
from edgeai.engine.kv_budget import KVBudget
from edgeai.engine.kv_cache import GRANULE, KVArena, granules
from edgeai.engine.prefix_cache import PrefixCache
from edgeai.engine.prefix_reuse import PrefixReuse
from edgeai.engine.restore import BlockStore
from edgeai.engine.sequence import Sequence
from edgeai.engine.waiting import WaitingQueue


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: a token for each sequence of `decode`, in slot order, and `chunk` tokens of a prompt."""

    decode: tuple[Sequence, ...]
    prefill: Sequence | None
    chunk: int

    def __bool__(self) -> bool:
        return bool(self.decode) or self.prefill is not None


class Scheduler:
    """Owns the queue, the slots and the budget of keys and values."""

    def __init__(
        self,
        settings: EngineSettings,
        arena: KVArena,
        cache: PrefixCache,
        shape: ModelShape,
        store: BlockStore | None = None,
    ) -> None:
        self.settings = settings
        self.waiting = WaitingQueue()
        self.chunks = ChunkSizer(settings, shape, arena.capacity)
        self.budget = KVBudget(settings.kv_budget_bytes, arena, cache)
        self.preemptions = 0
        self.rows = settings.max_rows  # how many may run at once; fewer while memory is scarce
        self._arena = arena
        self._token_bytes = shape.token_bytes
        self._reuse = PrefixReuse(settings, arena, cache, self.budget, store)
        self._decoding: list[Sequence] = []  # by slot
        self._prefilling: Sequence | None = None

    @property
    def running(self) -> list[Sequence]:
        return [*self._decoding, *([self._prefilling] if self._prefilling else [])]

    @property
    def used_bytes(self) -> int:
        return self.budget.used_bytes

    @property
    def committed_bytes(self) -> int:
        """Those of `used_bytes` that have been written; the rest is reserved for rows, but not yet in memory."""
        written = sum(granules(sequence.computed) for sequence in self.running)
        return self.budget.cached_bytes + written * self._token_bytes

    def add(self, sequence: Sequence) -> None:
        self.waiting.add(sequence)

    def schedule(self) -> Plan:
        """Reserve memory for one step and say what it computes."""
        self._reserve_decode()
        if self._prefilling is None and self.waiting:
            self._admit()
        self._reuse.take_restored(self._prefilling)
        prefill = None if self._reuse.restoring else self._prefilling
        limit = self.chunks.limit(others_decode=bool(self._decoding))
        chunk = min(limit, len(prefill.tokens) - prefill.computed) if prefill else 0
        return Plan(tuple(self._decoding), prefill, chunk)

    def wait(self, seconds: float) -> None:
        """Wait for blocks that are being restored, or for memory, when there is nothing else to do."""
        if self._reuse.restoring:
            self._reuse.wait(seconds)
        elif self.waiting:
            time.sleep(seconds)

    def restrain(self, limits: Limits) -> None:
        """Obey new limits: where rows have to give memory back, the youngest sequences start again later."""
        self.rows, self.chunks.most = limits.rows, limits.chunk
        self.budget.restrain(limits)
        while limits.releasing and self.running and not self._within(limits):
            self._preempt(max(self.running, key=lambda s: s.arrival))

    def _within(self, limits: Limits) -> bool:
        running = len(self.running)
        return running <= limits.rows and self.budget.fits(0, alone=running == 1)

    def reserve_draft(self, sequence: Sequence, tokens: int) -> int:
        """Room for a draft of `tokens` tokens behind a decoding row; fewer where others would have to give way."""
        if sequence.slot is None:
            return 0
        needed = len(sequence.tokens) + tokens
        if not self.budget.fits(self._arena.growth_bytes(sequence.slot, needed)):
            return min(tokens, granules(len(sequence.tokens)) - len(sequence.tokens))
        self._arena.grow(sequence.slot, needed)
        return tokens

    def computed(self, plan: Plan, kept: Iterable[int]) -> None:
        """The plan was run, and of each decoding row's tokens `kept` have keys and values that stay.

        A prompt that is complete joins the decoding rows.
        """
        for sequence, tokens in zip(plan.decode, kept, strict=True):
            sequence.computed += tokens
        prefill = plan.prefill
        if prefill is None:
            return
        prefill.computed += plan.chunk
        if prefill.computed == len(prefill.tokens):
            self._reuse.remember(prefill)
            self._prefilling = None
            self._place(prefill, len(self._decoding))
            self._decoding.append(prefill)

    def remove(self, sequence: Sequence, *, remember: bool = True) -> None:
        """Take a sequence out, wherever it is; what it computed may stay in the prefix cache."""
        if sequence.slot is None:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return
        if sequence is self._prefilling:
            self._reuse.cancel()
        if remember:
            self._reuse.remember(sequence)
        slot = sequence.slot
        self._arena.release(slot)
        sequence.slot = None
        if sequence is self._prefilling:
            self._prefilling = None
            return
        last = self._decoding.pop()
        if last is not sequence:
            self._place(last, slot)
            self._decoding[slot] = last

    def check_integrity(self) -> None:
        """Raise RuntimeError if the books do not agree; for tests, and cheap enough to call when idle."""
        held = {sequence.slot for sequence in self.running}
        if held != self._arena.occupied:
            raise RuntimeError(f"slots {self._arena.occupied} have memory, sequences are in {held}")
        for slot, sequence in enumerate(self._decoding):
            if sequence.slot != slot:
                raise RuntimeError(f"row {slot} holds a sequence that believes to be in slot {sequence.slot}")
        if self.used_bytes > self.settings.kv_budget_bytes:
            raise RuntimeError(f"{self.used_bytes} bytes used of a budget of {self.settings.kv_budget_bytes}")

    def _admit(self) -> None:
        """Give the first waiting sequence the row behind the decoding ones, if there is room for all its tokens."""
        slot = len(self._decoding)
        if slot >= self.rows:
            return
        sequence = self._next()
        if sequence is None:
            return
        prefix = self._reuse.cached(sequence)  # looked up first: what is wanted is evicted last
        headroom = slot * GRANULE  # else the next tokens of the others could preempt it at once
        size = (granules(len(sequence.tokens) + 1) + headroom) * self._token_bytes
        if not self.budget.make_room(size, alone=not self.running):
            return
        self.waiting.remove(sequence)
        self._prefilling = sequence
        sequence.slot, sequence.computed = slot, 0
        self._arena.grow(slot, len(sequence.tokens) + 1)
        self._reuse.start(sequence, slot, prefix)

    def _next(self) -> Sequence | None:
        """The first waiting sequence; if its adapter would be one too many, the first that needs none."""
        turns = iter(self.waiting)
        first = next(turns)
        if len(distinct([each.adapter for each in (*self._decoding, first)])) <= self.settings.max_adapters:
            return first
        return next((sequence for sequence in turns if sequence.adapter is None), None)

    def _reserve_decode(self) -> None:
        """Room for one more token in every decoding row, taken from the youngest where there is none."""
        for sequence in sorted(self._decoding, key=lambda s: s.arrival):
            while sequence.slot is not None and not self._grow(sequence, sequence.slot):
                self._preempt(max(self.running, key=lambda s: s.arrival))

    def _grow(self, sequence: Sequence, slot: int) -> bool:
        needed = len(sequence.tokens)
        size = self._arena.growth_bytes(slot, needed)
        if size and not self.budget.make_room(size, alone=len(self.running) == 1):
            return False
        self._arena.grow(slot, needed)
        return True

    def _preempt(self, victim: Sequence) -> None:
        self.remove(victim, remember=False)  # its memory is what is needed
        victim.computed = 0
        victim.preempted += 1
        self.preemptions += 1
        self.waiting.put_back(victim)

    def _place(self, sequence: Sequence, slot: int) -> None:
        if sequence.slot is not None and sequence.slot != slot:
            self._arena.move(sequence.slot, slot, sequence.computed)
            sequence.slot = slot
