"""QMoE and MoE as experts.py uses them, against plain numpy; and what it relies on in their CPU kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeai.architectures.config import Mixture
from edgeai.architectures.experts import Experts, widened, write_experts
from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.linear import LinearBuilder
from edgeai.build.quantize.rounding import is_router, quantize, round_to_nearest
from edgeai.errors import PackageError, UnsupportedModel
from edgeai.onnx_session import OnnxSession
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor
from tests.architectures.graphs import compute_in_float

HIDDEN, INNER, COUNT, TOKENS = 64, 96, 5, 9
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (1, TOKENS, HIDDEN)).astype(np.float32)
SCORES = RNG.normal(0, 2, (1, TOKENS, COUNT)).astype(np.float32)


def matrices(form: str, rows: int, cols: int, seed: int) -> list[Tensor]:
    """One matrix for each expert."""
    values = np.random.default_rng(seed).normal(0, cols**-0.5, (COUNT, rows, cols)).astype(np.float32)
    if form == "float":
        return [FloatTensor(own) for own in values]
    if form == "mixed":
        return [round_to_nearest(own, 8 if number % 2 else 4) for number, own in enumerate(values)]
    tensors = [round_to_nearest(own, int(form[0])) for own in values]
    if "zero points" in form:
        points = np.random.default_rng(seed).integers(5, 11, (rows, cols // 32), dtype=np.uint8)
        return [replace(tensor, zero_points=points + np.uint8(number)) for number, tensor in enumerate(tensors)]
    if "off centre" in form:
        return [replace(tensor, zero_point=7 + number) for number, tensor in enumerate(tensors)]
    return list(tensors)


def experts_of(form: str, *, chosen: int, normalized: bool) -> Experts:
    mixture = Mixture(COUNT, chosen, INNER, normalized)
    gates, ups = matrices(form, INNER, HIDDEN, 1), matrices(form, INNER, HIDDEN, 2)
    return Experts("experts", mixture, gates, ups, matrices(form, HIDDEN, INNER, 3))


def naive(experts: Experts) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Token by token, expert by expert."""
    mixture, out = experts.mixture, np.zeros_like(X[0])
    for token, (x, scores) in enumerate(zip(X[0], SCORES[0], strict=True)):
        shares = np.exp(scores) / np.exp(scores).sum()
        best = np.argsort(-shares)[: mixture.experts_per_token]
        total = shares[best].sum() if mixture.normalized else 1.0
        for expert in best:
            gate, up = (part[expert].dequantize() @ x for part in (experts.gates, experts.ups))
            inner = gate / (1 + np.exp(-gate)) * up
            out[token] += shares[expert] / total * (experts.downs[expert].dequantize() @ inner)
    return out


def run(experts: Experts, folder: Path, *, exact: bool = True) -> np.ndarray[Any, np.dtype[np.float32]]:
    with GraphBuilder(folder / "weights.bin") as graph:
        graph.input("x", TensorProto.FLOAT, ["rows", "new", HIDDEN])
        graph.input("router", TensorProto.FLOAT, ["rows", "new", COUNT])
        graph.op("Identity", [write_experts(LinearBuilder(graph), "x", "router", experts)], output="y")
        graph.output("y", TensorProto.FLOAT, ["rows", "new", HIDDEN])
        graph.save(folder / "model.onnx", name="experts")
    if exact:
        compute_in_float(folder / "model.onnx")
    session = OnnxSession(folder / "model.onnx", threads=1)
    return session.run(["y"], {"x": X, "router": SCORES})[0][0]


@pytest.mark.parametrize(("chosen", "normalized"), [(1, True), (2, True), (2, False), (1, False), (COUNT, False)])
@pytest.mark.parametrize("form", ["float", "4 bits", "4 bits, zero points", "4 bits, off centre"])
def test_mixture_in_float_arithmetic(form: str, chosen: int, normalized: bool, tmp_path: Path) -> None:
    experts = experts_of(form, chosen=chosen, normalized=normalized)
    expected = naive(experts)
    assert expected.std() > 0.1
    assert np.abs(run(experts, tmp_path) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("form", ["4 bits", "8 bits", "mixed", "8 bits, zero points"])
def test_mixture_with_int8_activations(form: str, tmp_path: Path) -> None:
    experts = experts_of(form, chosen=2, normalized=True)
    expected = naive(experts)
    assert np.abs(run(experts, tmp_path, exact=False) - expected).std() < 0.03 * expected.std()


def test_widened_codes_are_the_same_values() -> None:
    tensor = round_to_nearest(RNG.normal(0, 1, (8, 64)).astype(np.float32), 4)
    for form in (tensor, replace(tensor, zero_points=np.full((8, 2), 5, np.uint8)), replace(tensor, zero_point=3)):
        assert widened(form).bits == 8
        np.testing.assert_array_equal(widened(form).dequantize(), form.dequantize())


def test_grids_that_the_operator_does_not_have(tmp_path: Path) -> None:
    experts = experts_of("4 bits", chosen=2, normalized=True)
    first = experts.gates[0]
    assert isinstance(first, BlockTensor)
    affine = replace(first, minimums=first.scales)
    coarse = round_to_nearest(first.dequantize(), 4, block_size=64)
    for odd in (affine, coarse):
        with pytest.raises(UnsupportedModel, match="cannot be stored exactly"):
            run(replace(experts, gates=[odd, *experts.gates[1:]]), tmp_path)


def test_routers_stay_floats() -> None:
    router = FloatTensor(RNG.normal(0, 1, (8, 64)).astype(np.float32))
    assert quantize("model.layers.0.mlp.gate.weight", router, 4) is router
    assert is_router("model.layers.11.mlp.gate.weight")
    assert not is_router("model.layers.0.mlp.gate_proj.weight")
    assert not is_router("model.layers.0.mlp.experts.3.gate_proj.weight")


def probe(folder: Path, kind: str, **changes: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A float MoE or 4-bit QMoE node with attributes that experts.py does not use."""
    experts = experts_of("float" if kind == "MoE" else "4 bits", chosen=2, normalized=True)
    run(experts, folder, exact=kind == "MoE")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    (node,) = [node for node in model.graph.node if node.op_type == kind]
    for name, value in changes.items():
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    session = OnnxSession(folder / "model.onnx", threads=1)
    return session.run(["y"], {"x": X, "router": SCORES})[0][0]


@pytest.mark.parametrize("kind", ["MoE", "QMoE"])
def test_probe_only_interleaved_gates_exist_on_cpu(kind: str, tmp_path: Path) -> None:
    """When this fails, onnxruntime has learned another layout, and interleaving can go."""
    for fusion in (0, 2):
        with pytest.raises(PackageError, match="cannot be loaded"):
            probe(tmp_path, kind, swiglu_fusion=fusion)


def test_probe_qmoe_normalizes_what_it_is_not_told_to(tmp_path: Path) -> None:
    """When this fails, QMoE honours the attribute by itself, and its `router_weights` can go."""
    left = probe(tmp_path, "QMoE", normalize_routing_weights=0)
    told = probe(tmp_path, "QMoE", normalize_routing_weights=1)
    np.testing.assert_array_equal(left, told)
