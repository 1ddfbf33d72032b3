"""Matrix products and embeddings over weights as they are stored: float, or on a 4- or 8-bit grid.

A quantized matrix becomes MatMulNBits with int8 activations (accuracy level 4, the only fast one). Its grid is
symmetric, ``w = s * (q - z)`` with z = 8 or 128, or has an integer z for each block (GPTQ, AWQ), which the operator
takes at no cost. Where the grid's columns are not in the matrix's order, x is put into theirs first. An affine block,
``w = s * (q - z) + m``, is the same product plus one rank-one term a block:

    y = MatMulNBits(x) + blocksums(x) @ m'          m' = m + s * (symmetric z - z)

which keeps the weights of GGUF's Q4_1. That term is part of the product (affine.py), but for a tied token table, which
is also looked up. Scales are stored as they are given: as float32 they are read from the file, as float16, or
integers with a float16 step (`SuperScales`), casts and products are constants that onnxruntime folds when it loads the
graph, into memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgeai.architectures.affine import (
    Columns,
    columns_for,
    digits_of,
    in_the_middle,
    is_affine,
    offset_columns,
    offsets_of,
    shift_of,
)
from edgeai.architectures.graph import MICROSOFT, GraphBuilder
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import BlockTensor, FloatTensor, SuperScales, Tensor

SYMMETRIC_ZERO = {4: 8, 8: 128}
INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level


@dataclass(frozen=True, slots=True)
class Grid:
    """What matrices must have in common to be stacked into one product."""

    bits: int
    block_size: int
    zero_point: int | None  # None where each block has its own
    affine: bool
    columns: bytes | None  # their order, where it is not the matrix's
    column_scales: bytes | None  # factors of the columns, where they have such


def grid_of(tensor: Tensor) -> Grid | None:
    if isinstance(tensor, FloatTensor):
        return None
    zero_point = tensor.zero_point if tensor.zero_points is None else None
    columns = None if tensor.columns is None else tensor.columns.tobytes()
    factors = None if tensor.column_scales is None else tensor.column_scales.tobytes()
    return Grid(tensor.bits, tensor.block_size, zero_point, tensor.minimums is not None, columns, factors)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack matrices of one grid by rows. Raises ValueError when the grids differ."""
    if len(tensors) == 1:
        return tensors[0]
    if len({grid_of(tensor) for tensor in tensors}) > 1:
        raise ValueError("matrices on different grids cannot be stacked")
    if isinstance(tensors[0], FloatTensor):
        return FloatTensor(np.concatenate([t.values for t in tensors if isinstance(t, FloatTensor)]))
    blocks = [tensor for tensor in tensors if isinstance(tensor, BlockTensor)]
    minimums = [tensor.minimums for tensor in blocks if tensor.minimums is not None]
    zero_points = [tensor.zero_points for tensor in blocks if tensor.zero_points is not None]
    first = blocks[0]
    return BlockTensor(
        first.bits,
        first.block_size,
        first.zero_point,
        np.concatenate([tensor.codes for tensor in blocks]),
        np.concatenate([tensor.scales for tensor in blocks]),
        np.concatenate(minimums) if minimums else None,
        np.concatenate(zero_points) if zero_points else None,
        first.columns,
        _stack_super([tensor.super_scales for tensor in blocks]),
        _stack_super([tensor.super_minimums for tensor in blocks]),
        first.column_scales,
    )


def _stack_super(parts: Sequence[SuperScales | None]) -> SuperScales | None:
    """The small form of scales, where all parts have it: it is never needed, only shorter."""
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    return SuperScales(
        np.concatenate([part.steps for part in whole]), np.concatenate([part.multiples for part in whole])
    )


def centred(tensor: BlockTensor) -> BlockTensor:
    """The same values with codes around the symmetric zero point, where the codes leave room for that.

    GGUF's 6-bit blocks (q - 32, in an 8-bit container) then need no offset. It would have been exact too, but the
    rounding of int8 activations grows with the distance of the codes from the zero point.
    """
    shift = SYMMETRIC_ZERO[tensor.bits] - tensor.zero_point
    if tensor.minimums is not None or tensor.zero_points is not None or not shift or not tensor.codes.size:
        return tensor
    if int(tensor.codes.min()) + shift < 0 or int(tensor.codes.max()) + shift >= 1 << tensor.bits:
        return tensor
    codes = (tensor.codes + np.int16(shift)).astype(np.uint8)
    return replace(tensor, codes=codes, zero_point=SYMMETRIC_ZERO[tensor.bits])


def pack_codes(codes: NDArray[np.uint8], bits: int, block_size: int) -> NDArray[np.uint8]:
    """Codes [rows, cols] in MatMulNBits' layout [rows, blocks, block_size * bits / 8], low nibble first."""
    rows, cols = codes.shape
    blocks = codes.reshape(rows, cols // block_size, block_size)
    if bits == 8:
        return blocks
    return (blocks[..., 0::2] | (blocks[..., 1::2] << 4)).astype(np.uint8)


def pack_zero_points(zero_points: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Zero points [rows, blocks] as MatMulNBits has them: [rows, bytes], low nibble first, each row to a whole byte."""
    if bits == 8:
        return zero_points
    even = np.pad(zero_points, ((0, 0), (0, zero_points.shape[1] % 2)))
    return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8)


class LinearBuilder:
    """Adds matrix products to a graph, sharing the block sums of an activation among all products that read it."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph
        self.positions = ""  # a name for the leading dimensions of every x from here on; "": each may have others
        self._sums: dict[tuple[str, int], str] = {}
        self._ordered: dict[tuple[str, str], str] = {}
        self._extended: dict[tuple[str, Columns], str] = {}
        self._zeros: dict[tuple[str, int], str] = {}

    def matmul(self, x: str, name: str, tensor: Tensor, bias: str | None = None) -> str:
        """``x @ W.T + bias`` for x [rows, new, in_features], W [out_features, in_features], bias [out_features]."""
        if isinstance(tensor, FloatTensor):
            weight = self.float32(self.graph.weight(name, tensor.values.T), tensor.values)
            product = self.graph.op("MatMul", [x, weight])
            return product if bias is None else self.graph.op("Add", [product, bias])
        self.check(name, tensor)
        tensor = centred(tensor)
        x = self._in_order(x, tensor)
        if is_affine(tensor):
            return self._affine(x, name, in_the_middle(tensor), bias)
        codes = self.graph.weight(f"{name}.codes", pack_codes(tensor.codes, tensor.bits, tensor.block_size))
        scales = self.scales(name, tensor)
        inputs = [codes, scales, *self.zero_points(name, tensor)]
        return self.product(x, inputs, self.offsets(name, tensor, scales), tensor, bias)

    def _affine(self, x: str, name: str, tensor: BlockTensor, bias: str | None) -> str:
        """One product with the offsets as further columns (affine.py)."""
        columns = columns_for(tensor.codes.shape[1], tensor.block_size)
        own, own_scales = offset_columns(digits_of(offsets_of(tensor), tensor.bits), columns)
        whole = np.concatenate([tensor.codes, own], axis=1)
        codes = self.graph.weight(f"{name}.codes", pack_codes(whole, tensor.bits, tensor.block_size))
        scales = self._scales_beside(name, tensor, own_scales)
        return self._product(self._extend(x, columns), _with_bias([codes, scales], bias), tensor, whole.shape)

    def _scales_beside(self, name: str, tensor: BlockTensor, own: NDArray[np.float16]) -> str:
        """The scales of a grid and `own` of further columns beside them, as float32.

        Stored as one where that is possible, because every operator that is folded at load makes loading longer.
        """
        if tensor.super_scales is None:
            whole = np.concatenate([tensor.scales, own.astype(tensor.scales.dtype)], axis=1)
            return self.float32(self.graph.weight(f"{name}.scales", whole), whole)
        offset_scales = self.float32(self.graph.weight(f"{name}.offset_scales", own), own)
        return self.graph.op("Concat", [self.scales(name, tensor), offset_scales], axis=1)

    def _extend(self, x: str, columns: Columns) -> str:
        """X [..., inputs] with the sums of its blocks and zeros behind it: [..., inputs + columns.count]."""
        if (x, columns) not in self._extended:
            sums = self._block_sums(x, columns.sums, columns.block_size)
            parts = [x]
            for fill in columns.fills:
                parts += [sums, self._zeros_like(x, fill)] if fill else [sums]
            self._extended[x, columns] = self.graph.op("Concat", parts, axis=-1)
        return self._extended[x, columns]

    def _zeros_like(self, x: str, width: int) -> str:
        """Zeros [..., width] for an x [..., features]."""
        key = (self.positions or x, width)
        if key not in self._zeros:
            graph = self.graph
            shape = graph.op("Concat", [graph.op("Shape", [x], end=-1), graph.constant(np.array([width]))], axis=0)
            self._zeros[key] = graph.op("ConstantOfShape", [shape])
        return self._zeros[key]

    def product(
        self, x: str, inputs: Sequence[str], offsets: str | None, tensor: BlockTensor, bias: str | None = None
    ) -> str:
        """Multiply x with a quantized matrix whose initializers are already there.

        `inputs` are codes, scales and zero points where there are some; `offsets` is m' [rows, blocks]. A bias [rows]
        inside the product costs nothing.
        """
        y = self._product(x, _with_bias(inputs, bias), tensor, tensor.codes.shape)
        if offsets is None:
            return y
        graph = self.graph
        by_block = graph.op("Transpose", [offsets], perm=[1, 0])
        sums = self._block_sums(x, tensor.codes.shape[1] // tensor.block_size, tensor.block_size)
        return graph.op("Add", [y, graph.op("MatMul", [sums, by_block])])

    def _product(self, x: str, inputs: Sequence[str], tensor: BlockTensor, shape: tuple[int, ...]) -> str:
        rows, cols = shape
        return self.graph.op(
            "MatMulNBits",
            [x, *inputs],
            domain=MICROSOFT,
            N=rows,
            K=cols,
            bits=tensor.bits,
            block_size=tensor.block_size,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def float32(self, name: str, values: NDArray[np.floating[Any]]) -> str:
        """A float initializer as float32; the cast is folded at load."""
        return name if values.dtype == np.float32 else self.graph.op("Cast", [name], to=TensorProto.FLOAT)

    def scales(self, name: str, tensor: BlockTensor) -> str:
        """The scales of a grid as float32 [rows, blocks], stored as they come from the source."""
        return self._stored(f"{name}.scales", tensor.scales, tensor.super_scales)

    def _stored(self, name: str, values: NDArray[np.floating[Any]], small: SuperScales | None) -> str:
        """A float initializer, or the one product that gives it; products of constants are folded at load."""
        graph = self.graph
        if small is None:
            return self.float32(graph.weight(name, values), values)
        rows, supers = small.steps.shape
        steps = graph.weight(f"{name}.steps", small.steps[..., None])
        multiples = graph.weight(f"{name}.multiples", small.multiples.reshape(rows, supers, -1))
        factors = [graph.op("Cast", [factor], to=TensorProto.FLOAT) for factor in (multiples, steps)]
        return graph.op("Reshape", [graph.op("Mul", factors), graph.constant(np.array(small.multiples.shape))])

    def zero_points(self, name: str, tensor: BlockTensor) -> list[str]:
        """The initializer of a grid's own zero points, if it has such. Never as floats: that is a slow path."""
        if tensor.zero_points is None:
            return []
        return [self.graph.weight(f"{name}.zero_points", pack_zero_points(tensor.zero_points, tensor.bits))]

    def offsets(self, name: str, tensor: BlockTensor, scales: str) -> str | None:
        """Offsets m' [rows, blocks] of an affine grid, from its float32 `scales`; None where it is zero throughout."""
        shift = shift_of(tensor)
        if tensor.minimums is None and shift == 0:
            return None
        graph = self.graph
        offsets = graph.op("Mul", [scales, graph.constant(np.array(shift, np.float32))])
        if tensor.minimums is None:
            return offsets
        minimums = self._stored(f"{name}.minimums", tensor.minimums, tensor.super_minimums)
        return graph.op("Add", [minimums, offsets])

    def _in_order(self, x: str, tensor: BlockTensor) -> str:
        """Features of x [rows, new, features] in the order of the grid's columns; shared as the block sums are."""
        if tensor.columns is None:
            return x
        order = self.graph.constant(tensor.columns.astype(np.int32))
        if (x, order) not in self._ordered:
            self._ordered[x, order] = self.graph.op("Gather", [x, order], axis=-1)
        return self._ordered[x, order]

    def _block_sums(self, x: str, blocks: int, size: int) -> str:
        """Sums of the blocks of x [rows, new, features] → [rows, new, blocks].

        Of the ways to write it, a sum over a reshaped view was the fastest at every size; average pooling and a product
        with a 0/1 matrix take 6 to 15 times as long on a prompt.
        """
        key = (x, size)
        if key not in self._sums:
            graph = self.graph
            view = graph.op("Reshape", [x, graph.constant(np.array([0, 0, blocks, size]))])
            self._sums[key] = graph.op("ReduceSum", [view, graph.constant(np.array([3]))], keepdims=0)
        return self._sums[key]

    @staticmethod
    def check(name: str, tensor: BlockTensor) -> None:
        """Raise `UnsupportedModel` for a grid that the operators do not have."""
        if tensor.column_scales is not None:
            raise UnsupportedModel(f"{name}: columns with factors need integer products", "build it for another target")
        if tensor.bits not in SYMMETRIC_ZERO or tensor.block_size < 16 or tensor.block_size & (tensor.block_size - 1):
            raise UnsupportedModel(
                f"{name}: {tensor.bits} bits in blocks of {tensor.block_size} cannot be stored exactly",
                "quantize it again with --bits 4 or --bits 8",
            )


def _with_bias(inputs: Sequence[str], bias: str | None) -> Sequence[str]:
    """Codes, scales and perhaps zero points, and a bias in its place: inside the product it costs nothing."""
    return inputs if bias is None else [*inputs, *[""] * (4 - len(inputs)), bias]
