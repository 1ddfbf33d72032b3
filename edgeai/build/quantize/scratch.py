"""Quantized tensors between being made and being written: in files, so that memory holds one at a time."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeai.build.quantize.grid import Grid
from edgeai.sources.weights import BlockTensor, SuperScales


class Scratch:
    """Tensors in a folder under `cache`, which is on a disk, not in memory as temporary folders may be.

    The folder is made with the first tensor and removed at the end of the with block.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._folder: Path | None = None
        self._stack = ExitStack()
        self._grids: dict[str, Grid] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._grids

    def keep(self, name: str, tensor: BlockTensor) -> None:
        """Write a tensor that `grid.tensor_of` made."""
        if tensor.super_scales is None:
            raise ValueError(f"{name} has no scales in their small form")
        self._grids[name] = Grid(tensor.bits, tensor.block_size)
        arrays: list[NDArray[Any]] = [tensor.codes, tensor.super_scales.steps, tensor.super_scales.multiples]
        for path, array in zip(self._paths(name), arrays, strict=True):
            np.save(path, array)

    def load(self, name: str) -> BlockTensor:
        """The tensor, its codes mapped from the file. Raises KeyError for one that was not kept."""
        grid = self._grids[name]
        codes, steps, multiples = (np.load(path, mmap_mode="r") for path in self._paths(name))
        small = SuperScales(steps, multiples)
        return BlockTensor(grid.bits, grid.block_size, grid.zero, codes, small.values(), super_scales=small)

    def _paths(self, name: str) -> list[Path]:
        if self._folder is None:
            self._cache.mkdir(parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(prefix="quantize-", dir=self._cache)
            self._folder = Path(self._stack.enter_context(made))
        return [self._folder / f"{name}.{part}.npy" for part in ("codes", "steps", "multiples")]
