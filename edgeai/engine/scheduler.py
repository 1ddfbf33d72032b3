"""Decides what the next step computes: continuous batching, chunked prefill, preemption by recompute.

Rows 0 to d-1 of the arena decode, one token each; behind them are those that read their prompts, of which one has a
chunk in a step. A prompt that is being read is overtaken, and waits in its row, by those whose turn is before its own:
of clients who were served less meanwhile, and interactive ones before batch. Memory is reserved before anything is
computed: the prefix cache gives way first, then the youngest sequence, batch before interactive, which starts again
later from the tokens it has. Batch rows also give way to interactive requests that find no row
(`WaitingQueue.may_displace`), and one of a client's several rows to a client who has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

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
from edgeai.engine.terms import Priority
from edgeai.engine.victims import of_a_crowd, rank
from edgeai.engine.waiting import WaitingQueue


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: a token for each sequence of `decode`, in slot order, and up to `chunk` tokens of a prompt."""

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
        self.allowed_rows = settings.max_rows  # fewer while power is scarce; nobody who runs has to leave for that
        self.rows_for_memory = settings.max_rows  # fewer while that is scarce
        self._arena = arena
        self._token_bytes = shape.token_bytes
        self._reuse = PrefixReuse(settings, arena, cache, self.budget, store)
        self._decoding: list[Sequence] = []  # by slot
        self._reading: list[Sequence] = []

    @property
    def rows(self) -> int:
        """How many may run at once."""
        return min(self.rows_for_memory, self.allowed_rows)

    @property
    def reading(self) -> tuple[Sequence, ...]:
        """Sequences that have a row, and whose prompts are not read to the end."""
        return tuple(self._reading)

    @property
    def running(self) -> list[Sequence]:
        return [*self._decoding, *self._reading]

    @property
    def used_bytes(self) -> int:
        return self.budget.used_bytes

    @property
    def committed_bytes(self) -> int:
        """Those of `used_bytes` that have been written; the rest is reserved for rows, but not yet in memory."""
        written = sum(granules(each.computed + self._reuse.restored_tokens(each)) for each in self.running)
        return self.budget.cached_bytes + written * self._token_bytes

    def add(self, sequence: Sequence) -> None:
        if not any(each.terms.priority is Priority.BATCH for each in (*self.running, *self.waiting)):
            self.waiting.forgive()
        self.waiting.add(sequence)

    def schedule(self) -> Plan:
        """Reserve memory for one step and say what it computes."""
        self._reserve_decode()
        if self.waiting:
            self._admit()
        self._reuse.advance(others_decode=bool(self._decoding))
        self._reuse.remember_restored(self._decoding)
        ready = (each for each in self._reading if each is not self._reuse.filling)
        prefill = min(ready, key=self.waiting.turn, default=None)
        chunk = min(self.chunks.most, len(prefill.tokens) - prefill.computed) if prefill else 0
        return Plan(tuple(self._decoding), prefill, chunk)

    def fit(self, plan: Plan, spent: float) -> Plan:
        """`plan` with a chunk that keeps the decoding rows' latency, in a step that has lasted `spent` seconds."""
        if plan.prefill is None:
            return plan
        limit = self.chunks.limit(plan.prefill.computed, spent, others_decode=bool(plan.decode))
        return replace(plan, chunk=min(plan.chunk, limit))

    def reading_seconds(self, sequence: Sequence) -> float:
        """What reading a waiting sequence's prompt takes at least, at the speed that was measured."""
        known = self._reuse.known_tokens(sequence)
        return self.chunks.prompt_seconds(len(sequence.tokens) - known, known)

    def wait(self, seconds: float) -> None:
        """Wait for blocks that are being restored, or for memory, when there is nothing else to do."""
        if self._reuse.filling is not None:
            self._reuse.wait(seconds)
        elif self.waiting:
            time.sleep(seconds)

    def restrain(self, limits: Limits) -> None:
        """Obey new limits: where rows have to give memory back, the youngest sequences start again later."""
        self.rows_for_memory, self.chunks.most = limits.rows, limits.chunk
        self.budget.restrain(limits)
        while limits.releasing and self.running and not self._within(limits):
            self._preempt(max(self.running, key=rank))

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
            self.waiting.charge(sequence, written=tokens)
        prefill = plan.prefill
        if prefill is None:
            return
        self._charge_prompt(prefill, prefill.computed + plan.chunk)
        prefill.computed += plan.chunk
        # Chunk by chunk: a long prompt as a whole would hold up the decoding rows.
        self._reuse.remember(prefill, restored=False)
        if prefill.computed == len(prefill.tokens):
            self._reading.remove(prefill)
            self._place(prefill, len(self._decoding))
            self._decoding.append(prefill)

    def remove(self, sequence: Sequence, *, remember: bool = True) -> None:
        """Take a sequence out, wherever it is; what it computed may stay in the prefix cache."""
        if sequence.slot is None:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return
        self._reuse.cancel(sequence)
        if remember:
            self._reuse.remember(sequence)
        slot = sequence.slot
        self._arena.release(slot)
        sequence.slot = None
        if sequence in self._reading:
            self._reading.remove(sequence)
            return
        last = self._decoding.pop()
        if last is not sequence:
            self._place(last, slot)
            self._decoding[slot] = last

    def check_integrity(self) -> None:
        """Raise RuntimeError if the books do not agree; for tests, and cheap enough to call when idle."""
        held = {sequence.slot for sequence in self.running}
        if held != self._arena.occupied or len(held) < len(self.running):
            raise RuntimeError(f"slots {self._arena.occupied} have memory, sequences are in {held}")
        for slot, sequence in enumerate(self._decoding):
            if sequence.slot != slot:
                raise RuntimeError(f"row {slot} holds a sequence that believes to be in slot {sequence.slot}")
        if self.used_bytes > self.settings.kv_budget_bytes:
            raise RuntimeError(f"{self.used_bytes} bytes used of a budget of {self.settings.kv_budget_bytes}")

    def _charge_prompt(self, sequence: Sequence, computed: int) -> None:
        """Count what is computed of a prompt for the first time."""
        computed = min(computed, sequence.prompt_tokens)
        first = max(sequence.computed, sequence.charged)
        if computed > first:
            self.waiting.charge(sequence, read=computed - first)
            sequence.charged = computed

    def _admit(self) -> None:
        """Give the next waiting sequence the row behind the decoding ones, if there is room for all its tokens."""
        sequence = self._candidate()
        if sequence is None:
            return
        found = self._reuse.cached(sequence)  # looked up first: what is wanted is evicted last
        size = self._size(sequence)
        while not self.budget.make_room(size, alone=not self.running):
            if not self._displace(sequence, size):
                return
        self.waiting.remove(sequence)
        self._reading.append(sequence)
        taken = self._arena.occupied
        slot = next(slot for slot in range(len(self._decoding), self._arena.slots) if slot not in taken)
        sequence.slot, sequence.computed = slot, 0
        sequence.admitted = sequence.admitted or time.monotonic()
        self._arena.grow(slot, len(sequence.tokens) + 1)
        self._reuse.start(sequence, slot, found)

    def _candidate(self) -> Sequence | None:
        """Who is given a row now, perhaps one that another has to give up."""
        sequence = self._next()
        if sequence is None or self._reuse.filling is not None or not self._at_once(sequence):
            return None
        if len(self.running) < self.rows or self._displace(sequence):
            return sequence
        newcomer = self._newcomer()
        victim = None if newcomer is None else of_a_crowd(self.running, newcomer)
        others = [each for each in self.running if each is not victim]
        if newcomer is None or victim is None or self._held(others) + self._size(newcomer) > self.budget.limit:
            return None
        self._preempt(victim, remember=True)
        return newcomer

    def _size(self, sequence: Sequence) -> int:
        """Bytes for a waiting sequence, with headroom: else the next tokens of the others could preempt it at once."""
        return (granules(len(sequence.tokens) + 1) + len(self.running) * GRANULE) * self._token_bytes

    def _held(self, sequences: Iterable[Sequence]) -> int:
        """Bytes that their rows hold."""
        return sum(self._arena.slot_bytes(each.slot) for each in sequences if each.slot is not None)

    def _at_once(self, sequence: Sequence) -> bool:
        """Whether a waiting sequence would be read at once; else a row would be missing for those who come later."""
        turn = self.waiting.turn(sequence)
        return all(turn < self.waiting.turn(reading) for reading in self._reading)

    def _newcomer(self) -> Sequence | None:
        """The first waiting sequence of a client who has no row."""
        clients = {each.terms.client for each in self.running}
        waiting = (each for each in self.waiting if each.terms.client not in clients)
        return next((each for each in waiting if self._at_once(each) and self._adapter_fits(each)), None)

    def _displace(self, urgent: Sequence, size: int = 0) -> bool:
        """Preempt the youngest of those that give way to `urgent`; False if all of them would not free `size` bytes."""
        victims = [each for each in self.running if self.waiting.may_displace(urgent, each)]
        alone = len(victims) == len(self.running)
        if not victims or not self.budget.fits(size - self._held(victims), alone=alone):
            return False
        self._preempt(max(victims, key=rank), remember=True)
        return True

    def _next(self) -> Sequence | None:
        """The first waiting sequence; if its adapter would be one too many, the first that needs none."""
        turns = iter(self.waiting)
        first = next(turns)
        if self._adapter_fits(first):
            return first
        return next((sequence for sequence in turns if sequence.adapter is None), None)

    def _adapter_fits(self, sequence: Sequence) -> bool:
        adapters = distinct([each.adapter for each in (*self.running, sequence)])
        return len(adapters) <= self.settings.max_adapters

    def _reserve_decode(self) -> None:
        """Room for one more token in every decoding row, taken from the last in rank where there is none."""
        for sequence in sorted(self._decoding, key=rank):
            while sequence.slot is not None and not self._grow(sequence, sequence.slot):
                self._preempt(max(self.running, key=rank))

    def _grow(self, sequence: Sequence, slot: int) -> bool:
        needed = len(sequence.tokens)
        size = self._arena.growth_bytes(slot, needed)
        if size and not self.budget.make_room(size, alone=len(self.running) == 1):
            return False
        self._arena.grow(slot, needed)
        return True

    def _preempt(self, victim: Sequence, *, remember: bool = False) -> None:
        """Take a row away; what it computed is only remembered where its memory is not what is needed."""
        self.remove(victim, remember=remember)
        victim.computed = 0
        victim.preempted += 1
        self.preemptions += 1
        self.waiting.put_back(victim)

    def _place(self, sequence: Sequence, slot: int) -> None:
        """Move a sequence to a slot; one that reads its prompt there goes to where this one was."""
        if sequence.slot is None or sequence.slot == slot:
            return
        other = next((each for each in self._reading if each.slot == slot), None)
        if other is None:
            self._arena.move(sequence.slot, slot, sequence.computed)
        else:
            self._reuse.settle(other)
            self._arena.swap(sequence.slot, slot)
            other.slot = sequence.slot
        sequence.slot = slot
