"""The `WeightSource` protocol: what the build half knows about where weights come from, and no more.

A source presents any published checkpoint as if it were a Hugging Face one: `config` has the keys of
`config.json`, tensors carry Hugging Face names and row order. Tensors are loaded one at a time, as floats or
still on the grid they were quantized to, so that a build never holds a whole float model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as listed by its source, before it is loaded."""

    name: str
    shape: tuple[int, ...]
    encoding: str  # the format's own word: F32, F16, BF16, Q4_0, Q4_1, Q8_0, ...


@dataclass(frozen=True, slots=True)
class FloatTensor:
    """A tensor of plain values, any shape, float32 or float16."""

    values: NDArray[np.floating[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def dequantize(self) -> NDArray[np.float32]:
        return self.values.astype(np.float32)

    def rows(self, start: int, stop: int) -> FloatTensor:
        """A slice of the first axis, cut to what is there."""
        return self.take(slice(start, stop))

    def take(self, rows: slice | NDArray[np.intp]) -> FloatTensor:
        """The rows that a slice or an array of row numbers names, in its order."""
        return FloatTensor(self.values[rows])


@dataclass(frozen=True, slots=True)
class SuperScales:
    """Scales as GGUF's K types keep them: an integer for each block, times a step that several blocks share.

    Eight bits a block instead of the 32 that the products need; they are exact in float32.
    """

    steps: NDArray[np.float16]  # [rows, super-blocks]
    multiples: NDArray[np.int8]  # [rows, blocks], blocks a multiple of super-blocks

    def values(self) -> NDArray[np.float32]:
        """The products [rows, blocks]."""
        rows, supers = self.steps.shape
        products: NDArray[np.float32] = self.multiples.reshape(rows, supers, -1).astype(np.float32)
        with np.errstate(invalid="ignore"):  # a step that is not finite is refused by who reads it, by name
            products *= self.steps.astype(np.float32)[..., None]
        return products.reshape(rows, -1)

    def take(self, rows: slice | NDArray[np.intp]) -> SuperScales:
        """The rows that a slice or an array of row numbers names, in its order."""
        return SuperScales(self.steps[rows], self.multiples[rows])


@dataclass(frozen=True, slots=True)
class BlockTensor:
    """A matrix [rows, cols] that lies on a grid of `bits` bits, one scale per `block_size` values of a row.

    The value at [r, c] is ``scales[r, b] * (codes[r, c] - zero_point) + minimums[r, b]`` with b = c // block_size.
    Where a grid has a zero point for each block, `zero_points` stands in the place of `zero_point`. Where columns were
    sorted before they were cut into blocks (GPTQ's act-order), `columns` says which column of the matrix c is.
    `column_scales` are factors of the matrix's columns, in their own order. `super_scales` and `super_minimums` are a
    smaller form of the very values in `scales` and `minimums`; who changes those leaves them out.
    """

    bits: int
    block_size: int
    zero_point: int
    codes: NDArray[np.uint8]  # [rows, cols], one code per byte
    scales: NDArray[np.floating[Any]]  # [rows, cols // block_size], float16 where the format stores that
    minimums: NDArray[np.floating[Any]] | None = None  # like scales; None for a symmetric grid
    zero_points: NDArray[np.uint8] | None = None  # like scales, one code each; None where `zero_point` holds for all
    columns: NDArray[np.intp] | None = None  # [cols], a permutation; None where c is the matrix's own column
    super_scales: SuperScales | None = None
    super_minimums: SuperScales | None = None
    column_scales: NDArray[np.float32] | None = None  # [cols]

    def dequantize(self) -> NDArray[np.float32]:
        rows, cols = self.codes.shape
        blocks = self.codes.reshape(rows, cols // self.block_size, self.block_size).astype(np.float32)
        blocks -= np.float32(self.zero_point) if self.zero_points is None else self.zero_points[..., None]
        blocks *= self.scales.astype(np.float32)[..., None]
        if self.minimums is not None:
            blocks += self.minimums.astype(np.float32)[..., None]
        values = blocks.reshape(rows, cols)
        if self.columns is not None:
            values = np.take(values, np.argsort(self.columns), axis=1)
        if self.column_scales is not None:
            values *= self.column_scales
        return values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def rows(self, start: int, stop: int) -> BlockTensor:
        """A slice of the rows, cut to what is there."""
        return self.take(slice(start, stop))

    def take(self, rows: slice | NDArray[np.intp]) -> BlockTensor:
        """The rows that a slice or an array of row numbers names, in its order."""
        return replace(
            self,
            codes=self.codes[rows],
            scales=self.scales[rows],
            minimums=None if self.minimums is None else self.minimums[rows],
            zero_points=None if self.zero_points is None else self.zero_points[rows],
            super_scales=None if self.super_scales is None else self.super_scales.take(rows),
            super_minimums=None if self.super_minimums is None else self.super_minimums.take(rows),
        )


Tensor = FloatTensor | BlockTensor


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the device needs to turn text into ids and back."""

    tokenizer_json: bytes  # in the format of the `tokenizers` library
    chat_template: str | None  # Jinja source
    eos_token_ids: tuple[int, ...]  # any of these ends a reply
    bos_token_id: int | None
    add_bos: bool  # whether plain text is encoded with a leading BOS token
    special_tokens: Mapping[str, str] = field(default_factory=dict)  # bos_token, eos_token, ... as templates name them
    sampling: Mapping[str, float] = field(default_factory=dict)  # temperature, top_p, ... as its makers recommend them


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights came from, precisely enough to fetch the same bytes again."""

    kind: str  # path, wheel, hub
    location: str  # file name, requirement or repository; never an absolute path of the build machine
    revision: str
    sha256: Mapping[str, str]  # digest of every file that was read, by name
    licence: str | None = None  # as the source states it


class WeightSource(Protocol):
    """An opened checkpoint. Methods raise `SourceError` for what is damaged or missing."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration with the keys of Hugging Face's `config.json`."""

    @property
    def provenance(self) -> Provenance:
        """Where the bytes came from."""

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, by Hugging Face name, in the order of the file."""

    def load(self, name: str) -> Tensor:
        """Read one tensor. Matrices are [out_features, in_features], rows in Hugging Face order."""

    def tokenizer(self) -> TokenizerFiles:
        """The tokenizer and chat template that belong to the weights."""
