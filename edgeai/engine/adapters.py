"""LoRA adapters at run time: which low-rank terms a run needs, and which rows they are for.

A run is given the adapters of its rows side by side, and a mask that leaves each row only its own. So different
adapters, and none, share one run, and the base's weights are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeai.onnx_session import Binding, OnnxSession

Floats = NDArray[np.float32]
Terms = Mapping[int, tuple[Floats, Floats]]  # by site: a [in, rank] and b [rank, out], scale included
PREFIX = "adapter."


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The low-rank terms of one adapter. Keys and values that were computed with it are cached under `key`."""

    name: str
    key: bytes
    terms: Terms = field(repr=False)


@dataclass(frozen=True, slots=True)
class Site:
    """A place for adapters in a graph; `by_position` where its lines are the positions whose logits are wanted."""

    number: int
    inputs: int
    outputs: int
    by_position: bool


class AdapterBank:
    """The adapters of one run side by side: a [in, sum of ranks] and b [sum of ranks, out] at every site.

    One adapter's terms are used where they are; only several at once are copied together.
    """

    def __init__(self, adapters: Sequence[Adapter], sites: Sequence[Site]) -> None:
        self.adapters = tuple(adapters)
        self.sites = sites
        self.terms = [self._together(site) for site in sites]
        self.layouts = [tuple(_rank(adapter, site) for adapter in adapters) for site in sites]

    def suits(self, rows: Sequence[Adapter | None]) -> bool:
        """Whether these rows can run with it at no more cost than with a bank of their own."""
        needed = distinct(rows)
        return self.adapters == tuple(needed) or (len(needed) > 1 and set(needed) <= set(self.adapters))

    def replaced(self, rows: Sequence[Adapter | None]) -> AdapterBank:
        """A bank of just what these rows need, at the same sites."""
        return AdapterBank(distinct(rows), self.sites)

    def write_mask(self, mask: Floats, layout: Sequence[int], rows: Sequence[Adapter | None]) -> None:
        """Fill a mask [lines, rank]: ones where a line's adapter has its columns. `layout` is the rank of each."""
        mask[:] = 0
        stops = np.cumsum(layout)
        for line, adapter in enumerate(rows):
            if adapter is not None:
                index = self.adapters.index(adapter)
                mask[line, stops[index] - layout[index] : stops[index]] = 1

    def _together(self, site: Site) -> tuple[Floats, Floats]:
        terms = [adapter.terms[site.number] for adapter in self.adapters if site.number in adapter.terms]
        if len(terms) == 1:
            return terms[0]
        if not terms:
            return np.empty((site.inputs, 0), np.float32), np.empty((0, site.outputs), np.float32)
        return np.concatenate([a for a, _ in terms], axis=1), np.concatenate([b for _, b in terms])


class AdapterInputs:
    """The adapter inputs of one binding: a bank, and masks that are written before a run.

    `positions` [n] are the rows that the wanted positions belong to.
    """

    def __init__(self, binding: Binding, bank: AdapterBank, rows: int, positions: NDArray[np.int64]) -> None:
        self._binding = binding
        self._bank = bank
        self._rows = rows
        self._positions = positions
        self._masks: dict[tuple[bool, tuple[int, ...]], Floats] = {}  # sites of one layout share theirs
        self._written: list[Adapter | None] | None = None
        for number, site in enumerate(bank.sites):
            a, b = bank.terms[number]
            binding.input(f"{PREFIX}{site.number}.a", a)
            binding.input(f"{PREFIX}{site.number}.b", b)
            self._bind_mask(site, bank.layouts[number])

    def move(self, positions: NDArray[np.int64]) -> None:
        """Other positions than before are wanted now."""
        if np.array_equal(positions, self._positions):
            return
        self._positions = positions
        self._masks = {key: mask for key, mask in self._masks.items() if not key[0]}
        self._written = None
        for site, layout in zip(self._bank.sites, self._bank.layouts, strict=True):
            if site.by_position:
                self._bind_mask(site, layout)

    def write(self, rows: Sequence[Adapter | None]) -> None:
        """Set the adapter of every row."""
        if self._written == list(rows):
            return
        for (by_position, layout), mask in self._masks.items():
            lines = [rows[row] for row in self._positions] if by_position else rows
            self._bank.write_mask(mask.reshape(len(lines), sum(layout)), layout, lines)
        self._written = list(rows)

    def _bind_mask(self, site: Site, layout: tuple[int, ...]) -> None:
        lines = (1, len(self._positions)) if site.by_position else (self._rows, 1)
        mask = self._masks.setdefault((site.by_position, layout), np.zeros((*lines, sum(layout)), np.float32))
        self._binding.input(f"{PREFIX}{site.number}.mask", mask)


def sites_of(session: OnnxSession) -> list[Site]:
    """The places of a graph, from its inputs; none for a graph that takes no adapters."""
    shapes = session.input_shapes
    numbers = sorted(int(name.split(".")[1]) for name in shapes if name.startswith(PREFIX) and name.endswith(".mask"))
    return [
        Site(
            number,
            int(shapes[f"{PREFIX}{number}.a"][0]),
            int(shapes[f"{PREFIX}{number}.b"][1]),
            by_position=shapes[f"{PREFIX}{number}.mask"][0] != "rows",
        )
        for number in numbers
    ]


def distinct(rows: Sequence[Adapter | None]) -> list[Adapter]:
    """The adapters of these rows, each once."""
    return list(dict.fromkeys(adapter for adapter in rows if adapter is not None))


def _rank(adapter: Adapter, site: Site) -> int:
    return adapter.terms[site.number][0].shape[1] if site.number in adapter.terms else 0
