"""Decides what the next step computes: continuous batching, chunked prefill, preemption by recompute.

Rows 0 to d-1 of the arena decode, one token each; at most one sequence at a time reads its prompt, in a row behind
them. Memory is reserved before anything is computed: the prefix cache gives way first, then the youngest sequence,
which starts again later from the tokens it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from edgeai.engine.adapters import distinct
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import GRANULE, KVArena, granules
from edgeai.engine.prefix_cache import Block, PrefixCache, chain_keys
from edgeai.engine.restore import BlockStore, Restore
from edgeai.engine.sequence import Sequence

MIN_CHUNK = 16  # tokens; below this a chunk costs about as much as a single token


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: a token for each sequence of `decode`, in slot order, and `chunk` tokens of a prompt."""

    decode: tuple[Sequence, ...]
    prefill: Sequence | None
    chunk: int

    def __bool__(self) -> bool:
        return bool(self.decode) or self.prefill is not None


class Scheduler:
    """Owns the queue, the slots and the budget."""

    def __init__(
        self,
        settings: EngineSettings,
        arena: KVArena,
        cache: PrefixCache,
        shape: ModelShape,
        store: BlockStore | None = None,
    ) -> None:
        self.settings = settings
        self.waiting: deque[Sequence] = deque()
        self.preemptions = 0
        self.prefill_speed: float | None = None  # tokens per second, measured
        self._arena = arena
        self._cache = cache
        self._token_bytes = shape.token_bytes
        scores = shape.num_heads * arena.capacity * 4  # bytes of one token's attention scores
        self._chunk_tokens = max(MIN_CHUNK, min(settings.chunk_tokens, settings.scratch_bytes // scores))
        self._decoding: list[Sequence] = []  # by slot
        self._prefilling: Sequence | None = None
        self._store = store if settings.prefix_cache else None
        self._restore: Restore | None = None  # of the sequence that is to read its prompt next

    @property
    def running(self) -> list[Sequence]:
        return [*self._decoding, *([self._prefilling] if self._prefilling else [])]

    @property
    def used_bytes(self) -> int:
        return self._arena.used_bytes + self._cache.used_bytes

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> Plan:
        """Reserve memory for one step and say what it computes."""
        self._reserve_decode()
        if self._prefilling is None and self.waiting:
            self._admit()
        self._take_restored()
        prefill = None if self._restore else self._prefilling
        chunk = min(self._chunk_limit(), len(prefill.tokens) - prefill.computed) if prefill else 0
        return Plan(tuple(self._decoding), prefill, chunk)

    def wait(self, seconds: float) -> None:
        """Wait for blocks that are being restored, when there is nothing else to do."""
        if self._restore is not None:
            self._restore.wait(seconds)

    def reserve_draft(self, sequence: Sequence, tokens: int) -> int:
        """Room for a draft of `tokens` tokens behind a decoding row; fewer where others would have to give way."""
        if sequence.slot is None:
            return 0
        needed = len(sequence.tokens) + tokens
        if self.used_bytes + self._arena.growth_bytes(sequence.slot, needed) > self.settings.kv_budget_bytes:
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
            self._remember(prefill)
            self._prefilling = None
            self._place(prefill, len(self._decoding))
            self._decoding.append(prefill)

    def measured(self, tokens: int, seconds: float) -> None:
        """Take note of how long a chunk took; recent chunks count most, as speed falls with the context's length."""
        if tokens >= MIN_CHUNK:
            speed = tokens / seconds
            self.prefill_speed = speed if self.prefill_speed is None else (self.prefill_speed + speed) / 2

    def remove(self, sequence: Sequence, *, remember: bool = True) -> None:
        """Take a sequence out, wherever it is; what it computed may stay in the prefix cache."""
        if sequence.slot is None:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return
        if sequence is self._prefilling and self._restore is not None:
            self._restore.cancel()  # before its slot is anybody else's
            self._restore = None
        if remember:
            self._remember(sequence)
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
        if slot == self.settings.max_rows:
            return
        sequence = self._next()
        if sequence is None:
            return
        prefix = self._cached_prefix(sequence)  # looked up first: what is wanted is evicted last
        headroom = slot * GRANULE  # else the next tokens of the others could preempt it at once
        if not self._make_room((granules(len(sequence.tokens) + 1) + headroom) * self._token_bytes):
            return
        self.waiting.remove(sequence)
        self._prefilling = sequence
        sequence.slot, sequence.computed = slot, 0
        self._arena.grow(slot, len(sequence.tokens) + 1)
        for block in prefix:
            self._arena.write(slot, sequence.computed, block)
            sequence.computed += self._cache.block_tokens
        if not sequence.preempted:
            sequence.cached_tokens = sequence.computed
        if self._store is not None:
            chain = self._cache.chain(sequence.tokens[:-1], sequence.cache_root)
            for key, block in zip(chain, prefix, strict=False):
                self._store.offer(key, block, reused=True)
            self._begin_restore(self._store, sequence, slot, chain[len(prefix) :])

    def _next(self) -> Sequence | None:
        """The first waiting sequence; if its adapter would be one too many, the first that needs none."""
        first = self.waiting[0]
        if len(distinct([each.adapter for each in (*self._decoding, first)])) <= self.settings.max_adapters:
            return first
        return next((sequence for sequence in self.waiting if sequence.adapter is None), None)

    def _cached_prefix(self, sequence: Sequence) -> list[Block]:
        """Blocks to start from; a token is left to compute, for its logits.

        A sequence that waits for memory is looked up at every step, so keys are made only as far as blocks are found.
        """
        if not self.settings.prefix_cache:
            return []
        return self._cache.match(chain_keys(sequence.tokens[:-1], self._cache.block_tokens, sequence.cache_root))

    def _begin_restore(self, store: BlockStore, sequence: Sequence, slot: int, keys: list[bytes]) -> None:
        found = store.run(keys)
        if found:
            start, size = sequence.computed, self._cache.block_tokens
            self._restore = Restore(store, found, lambda i, block: self._arena.write(slot, start + i * size, block))

    def _take_restored(self) -> None:
        """Go on behind the blocks that a restore has brought back, once it is done."""
        if self._restore is None or self._prefilling is None or not self._restore.done:
            return
        self._prefilling.computed += self._restore.blocks * self._cache.block_tokens
        if not self._prefilling.preempted:
            self._prefilling.cached_tokens = self._prefilling.computed
        self._restore = None

    def _remember(self, sequence: Sequence) -> None:
        """Copy the whole blocks of a sequence to the cache, as far as the budget goes."""
        if not self.settings.prefix_cache or sequence.slot is None:
            return
        chain = self._cache.chain(sequence.tokens[: sequence.computed], sequence.cache_root)
        for index, key in enumerate(chain):
            if key in self._cache:
                continue
            while self.used_bytes + self._cache.block_bytes > self.settings.kv_budget_bytes:
                if not self._cache.evict(keep=chain):
                    return
            start = index * self._cache.block_tokens
            block = self._arena.read(sequence.slot, start, start + self._cache.block_tokens)
            self._cache.put(key, block)
            if self._store is not None:
                self._store.offer(key, block, reused=False)
        self._cache.touch(chain)

    def _reserve_decode(self) -> None:
        """Room for one more token in every decoding row, taken from the youngest where there is none."""
        for sequence in sorted(self._decoding, key=lambda s: s.arrival):
            while sequence.slot is not None and not self._grow(sequence, sequence.slot):
                self._preempt(max(self.running, key=lambda s: s.arrival))

    def _grow(self, sequence: Sequence, slot: int) -> bool:
        needed = len(sequence.tokens)
        if not self._make_room(self._arena.growth_bytes(slot, needed)):
            return False
        self._arena.grow(slot, needed)
        return True

    def _make_room(self, size: int) -> bool:
        while self.used_bytes + size > self.settings.kv_budget_bytes:
            if not self._cache.evict():
                return False
        return True

    def _preempt(self, victim: Sequence) -> None:
        self.remove(victim, remember=False)  # its memory is what is needed
        victim.computed = 0
        victim.preempted += 1
        self.preemptions += 1
        self.waiting.appendleft(victim)

    def _place(self, sequence: Sequence, slot: int) -> None:
        if sequence.slot is not None and sequence.slot != slot:
            self._arena.move(sequence.slot, slot, sequence.computed)
            sequence.slot = slot

    def _chunk_limit(self) -> int:
        if not self._decoding or self.prefill_speed is None:
            return self._chunk_tokens
        fitting = int(self.prefill_speed * self.settings.chunk_seconds) // MIN_CHUNK * MIN_CHUNK
        return min(self._chunk_tokens, max(MIN_CHUNK, fitting))
