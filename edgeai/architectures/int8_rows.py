"""Products of 8-bit integers with one scale for each row on both sides, as operators that any processor has fast.

For a row x of K values and weights W [K, N] with columns w::

    a = max|x| / 127,  b = max|w| / 127,  y = a * b * (round(x / a) @ round(w / b))

Every token has a scale of its own: what it becomes does not depend on what else is in its run, and one outlier token
does not take the others' resolution (onnxruntime's dynamic quantization has one scale for a whole run). The sums are
integers, so that every processor gives the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeai.architectures.graph import MICROSOFT

LARGEST = 127
ZERO = 128  # the zero point of unsigned codes
SMALLEST = 1e-12  # scale of a row of zeros


class Nodes(Protocol):
    """What operators are added to."""

    def op(self, kind: str, inputs: Sequence[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a small tensor; equal ones are stored once."""


def quantized_rows(graph: Nodes, x: str, width: int, *, unsigned: bool = False) -> tuple[str, str]:
    """Codes like x [..., width], and scales [..., 1].

    Signed codes take two operators less; unsigned ones are what x86 multiplies with signed weights in one instruction.
    """
    axes = graph.constant(np.array([-1], np.int64))
    peak = graph.op("ReduceMax", [graph.op("Abs", [x]), axes])
    scale = graph.op("Mul", [peak, graph.constant(np.array(1 / LARGEST, np.float32))])
    scale = graph.op("Max", [scale, graph.constant(np.array(SMALLEST, np.float32))])
    if unsigned:
        zero = helper.make_tensor("zero", TensorProto.UINT8, [1], [ZERO])
        zeros = graph.op("ConstantOfShape", [graph.op("Shape", [scale])], value=zero)
        codes = graph.op("QuantizeLinear", [x, scale, zeros], axis=-1, block_size=width)
    else:
        codes = graph.op("QuantizeLinear", [x, scale], axis=-1, block_size=width, output_dtype=int(TensorProto.INT8))
    return codes, scale


def int8_product(
    graph: Nodes, rows: tuple[str, str], weights: str, scales: str, *, unsigned: bool = False, output: str = ""
) -> str:
    """Quantized rows times signed codes [K, N] with float32 scales [N] → [..., N]."""
    codes, row_scales = rows
    operands = [codes, weights, graph.constant(np.array(1, np.float32)), scales]
    if unsigned:
        operands.append(graph.constant(np.array(ZERO, np.uint8)))
    unscaled = graph.op("MatMulIntegerToFloat", operands, domain=MICROSOFT)
    return graph.op("Mul", [unscaled, row_scales], output=output)
