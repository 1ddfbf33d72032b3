"""Mixtures of experts by onnxruntime's MoE (floats) and QMoE (4- or 8-bit blocks) operators.

Probed on onnxruntime 1.32's CPU kernels (tests/architectures/test_experts.py keeps the probes):

- Of the layouts for gate and up projections only one exists there: rows interleaved in one matrix (swiglu_fusion 1).
- Codes are packed as MatMulNBits' are, with a scale and an optional integer zero point for each block. There are no
  minimums, and one width for all matrices: 4-bit experts beside 8-bit ones are written as 8-bit codes, exactly.
- `router_probs` are the router's scores before the softmax. With normalize_routing_weights 1 the shares of the chosen
  experts add up to one. MoE with 0 takes their shares among all experts, QMoE does not: it gets these as
  `router_weights`.
- accuracy_level 4 means int8 activations for 4-bit experts; 8-bit experts have nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.config import Mixture
from edgeai.architectures.graph import MICROSOFT
from edgeai.architectures.linear import (
    INT8_ACTIVATIONS,
    SYMMETRIC_ZERO,
    LinearBuilder,
    pack_codes,
    pack_zero_points,
)
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor


@dataclass(frozen=True, slots=True)
class Experts:
    """The matrices of one layer's experts: gate and up [intermediate, hidden], down [hidden, intermediate]."""

    name: str
    mixture: Mixture
    gates: Sequence[Tensor]
    ups: Sequence[Tensor]
    downs: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class _Stacked:
    """One projection of all experts, as QMoE takes it. `zero_points` only where they are not the symmetric ones."""

    codes: NDArray[np.uint8]  # [experts, rows, bytes]
    scales: NDArray[np.floating[Any]]  # [experts, rows, blocks]
    zero_points: NDArray[np.uint8] | None  # [experts, rows, bytes]


def write_experts(linear: LinearBuilder, x: str, router: str, experts: Experts) -> str:
    """Add the mixture for x [rows, new, hidden] and its router's scores [rows, new, experts]; returns it as x is."""
    count = experts.mixture.num_experts
    scores = linear.graph.op("Reshape", [router, linear.graph.constant(np.array([-1, count]))])
    everything = [*experts.gates, *experts.ups, *experts.downs]
    if any(isinstance(tensor, FloatTensor) for tensor in everything):
        return _write_floats(linear, x, scores, experts)
    blocks = [tensor for tensor in everything if isinstance(tensor, BlockTensor)]
    return _write_blocks(linear, x, scores, experts, common_grid(experts.name, blocks))


def _write_floats(linear: LinearBuilder, x: str, scores: str, experts: Experts) -> str:
    graph = linear.graph
    pairs = zip(experts.gates, experts.ups, strict=True)
    fused = np.stack([_interleaved(gate.dequantize(), up.dequantize()) for gate, up in pairs])
    down = np.stack([tensor.dequantize() for tensor in experts.downs])
    inputs = [x, scores, graph.weight(f"{experts.name}.gate_up", fused), "", graph.weight(f"{experts.name}.down", down)]
    return graph.op("MoE", inputs, domain=MICROSOFT, **_routing(experts.mixture))


def _write_blocks(linear: LinearBuilder, x: str, scores: str, experts: Experts, tensors: Sequence[BlockTensor]) -> str:
    graph, count = linear.graph, experts.mixture.num_experts
    gates, ups, downs = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
    parts = {"gate_up": _stacked(gates, ups), "down": _stacked(downs)}
    names: dict[str, tuple[str, str, str]] = {}
    for part, stacked in parts.items():
        at = f"{experts.name}.{part}"
        scales = linear.float32(graph.weight(f"{at}.scales", stacked.scales), stacked.scales)
        zeros = "" if stacked.zero_points is None else graph.weight(f"{at}.zero_points", stacked.zero_points)
        names[part] = (graph.weight(f"{at}.codes", stacked.codes), scales, zeros)
    first, second = names["gate_up"], names["down"]
    inputs = [x, scores, *first[:2], "", *second[:2], "", "", "", "", first[2], second[2], ""]
    if not experts.mixture.normalized:
        inputs.append(graph.op("Softmax", [scores], axis=-1))
    while not inputs[-1]:  # optional ones at the end
        inputs.pop()
    return graph.op(
        "QMoE",
        inputs,
        domain=MICROSOFT,
        expert_weight_bits=tensors[0].bits,
        block_size=tensors[0].block_size,
        accuracy_level=INT8_ACTIVATIONS,
        **_routing(experts.mixture),
    )


def _routing(mixture: Mixture) -> dict[str, Any]:
    """``silu(gate) * up`` in the operators' terms, and how many experts a token goes to."""
    return {
        "k": mixture.experts_per_token,
        "normalize_routing_weights": int(mixture.normalized),
        "activation_type": "swiglu",
        "activation_alpha": 1.0,
        "activation_beta": 0.0,
        "swiglu_fusion": 1,
    }


def common_grid(name: str, tensors: Sequence[BlockTensor]) -> list[BlockTensor]:
    """The tensors in codes of one width. Raises `UnsupportedModel` for grids that QMoE does not have."""
    if len({tensor.block_size for tensor in tensors}) > 1 or any(tensor.minimums is not None for tensor in tensors):
        raise UnsupportedModel(
            f"{name}: experts on grids with minimums, or with blocks of different sizes, cannot be stored exactly",
            "start from a checkpoint in floats, with --bits 4 or --bits 8",
        )
    LinearBuilder.check(name, tensors[0])
    widest = max(tensor.bits for tensor in tensors)
    return [tensor if tensor.bits == widest else widened(tensor) for tensor in tensors]


def widened(tensor: BlockTensor) -> BlockTensor:
    """The values of a 4-bit grid in 8-bit codes."""
    shift = SYMMETRIC_ZERO[8] - SYMMETRIC_ZERO[4]
    zero_points = None if tensor.zero_points is None else tensor.zero_points + np.uint8(shift)
    return replace(
        tensor,
        bits=8,
        zero_point=tensor.zero_point + shift,
        codes=tensor.codes + np.uint8(shift),
        zero_points=zero_points,
    )


def _stacked(tensors: Sequence[BlockTensor], between: Sequence[BlockTensor] = ()) -> _Stacked:
    """Matrices of all experts; rows of those in `between` follow each of the rows of `tensors`."""
    symmetric = all(_is_symmetric(tensor) for tensor in (*tensors, *between))
    bits, block = tensors[0].bits, tensors[0].block_size
    codes = [pack_codes(rows, bits, block) for rows in _rows(tensors, between, lambda tensor: tensor.codes)]
    points = [] if symmetric else list(_rows(tensors, between, _zero_points))
    return _Stacked(
        np.stack([packed.reshape(len(packed), -1) for packed in codes]),
        np.stack(list(_rows(tensors, between, lambda tensor: tensor.scales))),
        np.stack([pack_zero_points(own, bits) for own in points]) if points else None,
    )


def _rows(
    tensors: Sequence[BlockTensor], between: Sequence[BlockTensor], part: Callable[[BlockTensor], NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    if not between:
        yield from map(part, tensors)
        return
    for first, second in zip(tensors, between, strict=True):
        yield _interleaved(part(first), part(second))


def _interleaved(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Rows of two matrices in turn."""
    return np.stack([first, second], axis=1).reshape(2 * len(first), -1)


def _is_symmetric(tensor: BlockTensor) -> bool:
    return tensor.zero_points is None and tensor.zero_point == SYMMETRIC_ZERO[tensor.bits]


def _zero_points(tensor: BlockTensor) -> NDArray[np.uint8]:
    if tensor.zero_points is not None:
        return tensor.zero_points
    return np.full(tensor.scales.shape, tensor.zero_point, np.uint8)
