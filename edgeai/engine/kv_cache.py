"""The KV arena: one reservation of address space, committed page by page as sequences grow.

The operators want, for each layer, one array [rows, kv_heads, capacity, head_size]. Every slot is given the capacity of
the whole context at once, but as memory that the kernel has only promised: a page exists from its first write on.
So a sequence never has to be copied to grow, and what counts against the budget is what was written, in steps of
`GRANULE` tokens. A freed slot gives its pages back.

Slots 0 to n-1 of a layer are one contiguous array, so a batch is a slice without a copy.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.config import ModelShape
from edgeai.engine.page_moves import move_pages
from edgeai.errors import OutOfMemory
from edgeai.onnx_session import Binding

GRANULE = 64  # tokens; 64 rows of 64 floats are 16 KiB, the largest page size in use on boards (of int8: 4 KiB)

Cached = NDArray[Any]  # float32, or int8 codes


def granules(tokens: int) -> int:
    """Tokens rounded up to whole granules."""
    return -(-tokens // GRANULE) * GRANULE


class KVArena:
    """Keys and values of all slots: `array` is [layers, 2, slots, kv_heads, capacity, head_size], of the shape's type.

    Raises `OutOfMemory` when the address space cannot be reserved.
    """

    def __init__(self, shape: ModelShape, slots: int, context_length: int) -> None:
        self.slots = slots
        kind = np.dtype(shape.kv_type)
        position = shape.num_kv_heads * shape.head_size * kind.itemsize  # bytes, of one layer's keys
        self.capacity = granules(context_length)
        # Heads a power of two apart would compete for the same cache lines; slots of whole pages can be moved.
        while self.capacity & (self.capacity - 1) == 0 or self.capacity * position % mmap.PAGESIZE:
            self.capacity += GRANULE
        dims = (shape.num_layers, 2, slots, shape.num_kv_heads, self.capacity, shape.head_size)
        size = int(np.prod(dims, dtype=np.int64)) * kind.itemsize
        self._map = reserve(size)
        self.array: Cached = np.frombuffer(self._map, kind).reshape(dims)
        part = self.array[0, 0, 0]
        self._spare: Cached = np.frombuffer(reserve(part.nbytes), kind).reshape(part.shape)
        self._token_bytes = shape.token_bytes
        self._written = [0] * slots  # tokens, in whole granules

    def bind(self, binding: Binding, slots: slice) -> None:
        """Have a run of one of edgeai's own graphs read and write the rows of `slots` in place."""
        for layer, parts in enumerate(self.array):
            for part, values in zip(("key", "value"), parts, strict=True):
                binding.in_place(f"past.{layer}.{part}", f"present.{layer}.{part}", values[slots])

    @property
    def used_bytes(self) -> int:
        return sum(self._written) * self._token_bytes

    @property
    def occupied(self) -> set[int]:
        """Slots that hold memory."""
        return {slot for slot, tokens in enumerate(self._written) if tokens}

    def slot_bytes(self, slot: int) -> int:
        """Bytes that `slot` holds."""
        return self._written[slot] * self._token_bytes

    def growth_bytes(self, slot: int, tokens: int) -> int:
        """Bytes that holding `tokens` tokens in `slot` would add to what is used."""
        return max(0, granules(tokens) - self._written[slot]) * self._token_bytes

    def grow(self, slot: int, tokens: int) -> None:
        """Count `tokens` tokens of `slot` as used; the pages come with the writes."""
        self._written[slot] = max(self._written[slot], granules(tokens))

    def read(self, slot: int, start: int, stop: int) -> Cached:
        """A copy of positions start to stop: [layers, 2, kv_heads, stop - start, head_size]."""
        return self.array[:, :, slot, :, start:stop].copy()

    def write(self, slot: int, start: int, values: Cached) -> None:
        """Put back what `read` gave, at positions from `start` on."""
        stop = start + values.shape[3]
        self.grow(slot, stop)
        self.array[:, :, slot, :, start:stop] = values

    def move(self, source: int, target: int, tokens: int) -> None:
        """Move the first `tokens` positions to another slot, which is free, and free the source.

        Where pages can be moved as they are this takes a fiftieth of the time of a copy, and what was reserved for the
        source is now the target's.
        """
        self._written[target] = max(granules(tokens), self._written[source])
        for layer in self.array:
            for part in layer:
                if not move_pages(part[source], part[target]):
                    part[target, :, :tokens] = part[source, :, :tokens]
                    self._discard(part[source])
        self._written[source] = 0

    def swap(self, one: int, other: int) -> None:
        """Exchange all that two slots hold."""
        for layer in self.array:
            for part in layer:
                self._swap_part(part[one], part[other], max(self._written[one], self._written[other]))
        self._written[one], self._written[other] = self._written[other], self._written[one]

    def _swap_part(self, first: Cached, second: Cached, tokens: int) -> None:
        if not move_pages(first, self._spare):
            held = first[:, :tokens].copy()
            first[:, :tokens] = second[:, :tokens]
            second[:, :tokens] = held
        elif not (move_pages(second, first) and move_pages(self._spare, second)):
            raise RuntimeError("the kernel moved pages and would not move them again: the KV cache is damaged")

    def release(self, slot: int) -> None:
        """Free a slot and give its pages back to the system."""
        if not self._written[slot]:
            return
        for layer in self.array:
            for part in layer:
                self._discard(part[slot])
        self._written[slot] = 0

    def _discard(self, values: Cached) -> None:
        """Give the pages of one slot's keys or values of one layer back."""
        start = values.__array_interface__["data"][0] - self.array.__array_interface__["data"][0]
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # only pages that are wholly this slot's
        last = (start + values.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def reserve(size: int) -> mmap.mmap:
    """Address space without memory behind it yet. Raises `OutOfMemory` when the system refuses."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        area = mmap.mmap(-1, size, flags=flags)
    except (OSError, ValueError, OverflowError) as error:
        raise OutOfMemory(
            f"the KV cache needs {size / 2**20:.0f} MiB of address space, which the system refuses",
            "ask for a shorter context or fewer rows",
        ) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        area.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would commit 2 MiB for the first token of every head
    return area
