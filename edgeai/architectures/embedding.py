"""The token table: looked up at the bottom of a decoder and, when it is tied, multiplied with at the top.

A tied table is stored once. Both operators read the same bytes of the weights file, under two shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeai.architectures.graph import MICROSOFT
from edgeai.architectures.linear import LinearBuilder, centred, pack_codes
from edgeai.architectures.linear_int8 import Int8LinearBuilder, Int8Table, has_row_scales, write_table
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor

NAME = "embedding"


@dataclass(frozen=True, slots=True)
class Embedding:
    """A token table [vocab_size, hidden_size] written to the graph."""

    linear: LinearBuilder
    table: Tensor
    codes: str  # initializer of the codes, or of the float values
    scales: str = ""
    offsets: str | None = None  # m' [vocab_size, blocks] of an affine grid
    zero_points: Sequence[str] = ()  # initializer of the blocks' own zero points, where they have such

    def lookup(self, ids: str) -> str:
        """Rows of the table for ids [rows, new] → [rows, new, hidden_size]."""
        graph = self.linear.graph
        if isinstance(self.table, FloatTensor):
            return self.linear.float32(graph.op("Gather", [self.codes, ids], axis=0), self.table.values)
        rows = graph.op(
            "GatherBlockQuantized",
            [self.codes, ids, self.scales, *self.zero_points],
            domain=MICROSOFT,
            bits=self.table.bits,
            block_size=self.table.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        return rows if self.offsets is None else self._shifted(rows, ids, self.offsets, self.table)

    def logits(self, x: str) -> str:
        """Product of x [1, n, hidden_size] and the transposed table → [1, n, vocab_size]."""
        graph = self.linear.graph
        if isinstance(self.table, FloatTensor):
            table = self.linear.float32(self.codes, self.table.values)
            flat = graph.op("Reshape", [x, graph.constant(np.array([-1, self.table.values.shape[1]]))])
            return graph.op("Unsqueeze", [graph.op("Gemm", [flat, table], transB=1), graph.constant(np.array([0]))])
        packed = pack_codes(self.table.codes[:1], self.table.bits, self.table.block_size).shape
        shape = (self.table.codes.shape[0], *packed[1:])
        codes = graph.alias(f"{NAME}.head_codes", self.codes, np.dtype(np.uint8), shape)
        return self.linear.product(x, [codes, self.scales, *self.zero_points], self.offsets, self.table)

    def _shifted(self, rows: str, ids: str, offsets: str, table: BlockTensor) -> str:
        graph = self.linear.graph
        hidden = table.codes.shape[1]
        shift = graph.op("Unsqueeze", [graph.op("Gather", [offsets, ids], axis=0), graph.constant(np.array([3]))])
        blocks = graph.constant(np.array([0, 0, hidden // table.block_size, table.block_size]))
        shifted = graph.op("Add", [graph.op("Reshape", [rows, blocks]), shift])
        return graph.op("Reshape", [shifted, graph.constant(np.array([0, 0, hidden]))])


def write_embedding(linear: LinearBuilder, table: Tensor) -> Embedding | Int8Table:
    """Store the token table as it is."""
    graph = linear.graph
    if isinstance(linear, Int8LinearBuilder) and isinstance(table, BlockTensor) and has_row_scales(table):
        return write_table(linear, NAME, table)
    if isinstance(table, FloatTensor):
        return Embedding(linear, table, graph.weight(NAME, table.values))
    linear.check(NAME, table)
    if table.columns is not None:
        raise UnsupportedModel(f"{NAME}: columns in another order cannot be looked up", "leave the table as floats")
    table = centred(table)
    packed = pack_codes(table.codes, table.bits, table.block_size)
    codes = graph.weight(f"{NAME}.codes", packed.reshape(packed.shape[0], -1))
    scales = linear.scales(NAME, table)
    offsets = linear.offsets(NAME, table, scales)
    return Embedding(linear, table, codes, scales, offsets, linear.zero_points(NAME, table))
