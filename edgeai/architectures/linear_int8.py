"""Matrix products for processors without 8-bit dot products: integer products with one scale for each row.

onnxruntime's products of 4- and 8-bit blocks (linear.py) expand the weights to floats on such processors: the
Cortex-A53 and A72 of the Raspberry Pi 3 and 4. Products of whole rows of integers are written in plain NEON
(docs/boards.md has the instructions counted). A matrix whose rows have one scale each becomes such a product; all
others are left to linear.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.int8_rows import int8_product, quantized_rows
from edgeai.architectures.linear import LinearBuilder
from edgeai.sources.weights import BlockTensor, Tensor

BITS, ZERO = 8, 128


def has_row_scales(tensor: Tensor) -> bool:
    """Whether a matrix lies on a symmetric 8-bit grid with one scale for each row."""
    return (
        isinstance(tensor, BlockTensor)
        and (tensor.bits, tensor.block_size, tensor.zero_point) == (BITS, tensor.codes.shape[1], ZERO)
        and tensor.minimums is None
        and tensor.zero_points is None
        and tensor.columns is None
    )


class Int8LinearBuilder(LinearBuilder):
    """Adds integer products to a graph, sharing the codes of an activation among all products that read it."""

    unsigned = False  # codes of activations; signed ones take fewer operators

    def __init__(self, graph: GraphBuilder) -> None:
        super().__init__(graph)
        self._codes: dict[str, tuple[str, str]] = {}
        self._products: dict[tuple[str, str], str] = {}

    def matmul(self, x: str, name: str, tensor: Tensor, bias: str | None = None) -> str:
        if not isinstance(tensor, BlockTensor) or not has_row_scales(tensor):
            return super().matmul(x, name, tensor, bias)
        codes = self.graph.weight(f"{name}.codes", signed(tensor).T)
        scales = self.graph.weight(f"{name}.scales", row_scales(tensor))
        y = int8_product(self.graph, self.quantized(x, tensor), codes, scales, unsigned=self.unsigned)
        return y if bias is None else self.graph.op("Add", [y, bias])

    def quantized(self, x: str, tensor: BlockTensor) -> tuple[str, str]:
        """Codes and scales of an activation [..., cols], its columns times what the matrix was divided by."""
        balanced, graph = x, self.graph
        if tensor.column_scales is not None:
            balanced = self._balanced(x, graph.constant(tensor.column_scales))
        if balanced not in self._codes:
            self._codes[balanced] = quantized_rows(graph, balanced, tensor.codes.shape[1], unsigned=self.unsigned)
        return self._codes[balanced]

    def _balanced(self, x: str, factors: str) -> str:
        if (x, factors) not in self._products:
            self._products[x, factors] = self.graph.op("Mul", [x, factors])
        return self._products[x, factors]


@dataclass(frozen=True, slots=True)
class Int8Table:
    """A token table [vocab_size, hidden_size] with one scale for each row, looked up and multiplied with."""

    linear: Int8LinearBuilder
    table: BlockTensor
    codes: str  # int8 [vocab_size, hidden_size]
    scales: str  # float32 [vocab_size]

    def lookup(self, ids: str) -> str:
        """Rows of the table for ids [rows, new] → [rows, new, hidden_size]."""
        graph = self.linear.graph
        rows = graph.op("Cast", [graph.op("Gather", [self.codes, ids], axis=0)], to=TensorProto.FLOAT)
        scales = graph.op("Gather", [self.scales, ids], axis=0)
        rows = graph.op("Mul", [rows, graph.op("Unsqueeze", [scales, graph.constant(np.array([-1]))])])
        factors = self.table.column_scales
        return rows if factors is None else graph.op("Mul", [rows, graph.constant(factors)])

    def logits(self, x: str) -> str:
        """Product of x [1, n, hidden_size] and the transposed table → [1, n, vocab_size]; turned when it is loaded."""
        graph = self.linear.graph
        turned = graph.op("Transpose", [self.codes], perm=[1, 0])
        rows = self.linear.quantized(x, self.table)
        return int8_product(graph, rows, turned, self.scales, unsigned=self.linear.unsigned)


def write_table(linear: Int8LinearBuilder, name: str, tensor: BlockTensor) -> Int8Table:
    """Store a token table with a scale for each row."""
    codes = linear.graph.weight(f"{name}.codes", signed(tensor))
    return Int8Table(linear, tensor, codes, linear.graph.weight(f"{name}.scales", row_scales(tensor)))


def signed(tensor: BlockTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """Codes around zero, [rows, cols]."""
    return (tensor.codes ^ np.uint8(ZERO)).view(np.int8)


def row_scales(tensor: BlockTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Scales [rows]."""
    return tensor.scales[:, 0].astype(np.float32)
