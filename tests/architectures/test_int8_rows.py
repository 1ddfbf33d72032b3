"""Integer products by row equal plain numpy, whatever is in the same run; and so does a whole decoder of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.linear_int8 import Int8LinearBuilder, has_row_scales, write_table
from edgeai.architectures.reference import ReferenceDecoder
from edgeai.architectures.registry import decoder_config, reference_logits, run_reference, write_graph
from edgeai.build.quantize.rows import nearest_rows
from edgeai.build.validate import chunked, compare, run_graph
from edgeai.errors import UnsupportedModel
from edgeai.onnx_session import OnnxSession
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor
from tests.architectures.graphs import random_ids
from tests.fixtures.tiny import TinySource

Floats = NDArray[np.float32]
SHAPE = (24, 40)


def matrix(seed: int = 0, *, factors: bool = False, shape: tuple[int, int] = SHAPE) -> BlockTensor:
    rng = np.random.default_rng(seed)
    values = FloatTensor(rng.standard_normal(shape, np.float32))
    return nearest_rows(values, rng.uniform(0.2, 5, shape[1]).astype(np.float32) if factors else None)


def rounded(x: Floats) -> Floats:
    """Rows in 8 bits, as floats again."""
    scales = np.maximum(np.abs(x).max(axis=-1, keepdims=True) * np.float32(1 / 127), np.float32(1e-12))
    return (np.rint(x / scales) * scales).astype(np.float32)


def product(x: Floats, tensor: BlockTensor) -> Floats:
    """The oracle: rounded rows times the matrix as it is stored."""
    factors = np.ones(x.shape[-1], np.float32) if tensor.column_scales is None else tensor.column_scales
    whole: Floats = rounded(x * factors).astype(np.float64) @ (tensor.dequantize() / factors).T.astype(np.float64)
    return whole.astype(np.float32)


@pytest.fixture
def run(tmp_path: Path):
    def run(x: Floats, *tensors: BlockTensor, bias: Floats | None = None) -> list[Floats]:
        """Products of x [1, rows, cols] with several matrices, by one graph."""
        path = tmp_path / "model.onnx"
        with GraphBuilder(tmp_path / "weights.bin") as graph:
            linear = Int8LinearBuilder(graph)
            graph.input("x", TensorProto.FLOAT, [1, "rows", x.shape[-1]])
            vector = None if bias is None else graph.weight("bias", bias)
            for number, tensor in enumerate(tensors):
                y = linear.matmul("x", f"w{number}", tensor, vector)
                graph.op("Identity", [y], output=f"y{number}")
                graph.output(f"y{number}", TensorProto.FLOAT, [1, "rows", tensor.shape[0]])
            graph.save(path, name="products")
        session = OnnxSession(path, threads=1)
        binding = session.binding()
        binding.input("x", np.ascontiguousarray(x))
        results = [np.full((1, x.shape[1], tensor.shape[0]), np.nan, np.float32) for tensor in tensors]
        for number, result in enumerate(results):
            binding.output(f"y{number}", result)
        session.run_bound(binding)
        return results

    return run


def inputs(rows: int, seed: int = 7) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((1, rows, SHAPE[1])) * rng.uniform(0.01, 30, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_product_equals_numpy(run, rows: int, factors: bool) -> None:
    tensor, x = matrix(factors=factors), inputs(rows)
    assert has_row_scales(tensor)
    np.testing.assert_allclose(run(x, tensor)[0], product(x, tensor), rtol=2e-6, atol=2e-5)


def test_a_bias_is_added(run) -> None:
    tensor, x, bias = matrix(), inputs(3), np.arange(SHAPE[0], dtype=np.float32)
    np.testing.assert_allclose(run(x, tensor, bias=bias)[0], product(x, tensor) + bias, rtol=2e-6, atol=2e-5)


def test_a_row_does_not_depend_on_its_neighbours(run) -> None:
    """Not in the last bit, and not beside a row that is a thousand times larger, or of zeros."""
    tensor, x = matrix(factors=True), inputs(5)
    x[0, 1] *= 1000
    x[0, 3] = 0
    together = run(x, tensor)[0]
    for row in range(x.shape[1]):
        np.testing.assert_array_equal(together[:, row], run(x[:, row : row + 1], tensor)[0][:, 0])
    assert not together[0, 3].any()


def test_products_of_the_same_inputs_share_their_codes(run, tmp_path: Path) -> None:
    run(inputs(2), matrix(1), matrix(2))
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("MatMulIntegerToFloat")) == (1, 2)


def test_factors_of_columns_are_for_integer_products_only(tmp_path: Path) -> None:
    tensor = matrix(factors=True, shape=(8, 64))
    with GraphBuilder(tmp_path / "weights.bin") as graph, pytest.raises(UnsupportedModel, match="columns"):
        Int8LinearBuilder(graph).check("w", tensor)


@pytest.mark.parametrize("factors", [False, True])
def test_a_table_is_looked_up_exactly(tmp_path: Path, factors: bool) -> None:
    tensor, ids = matrix(factors=factors), np.array([[3, 0, 23, 3]], np.int64)
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        graph.input("ids", TensorProto.INT64, [1, "n"])
        rows = write_table(Int8LinearBuilder(graph), "table", tensor).lookup("ids")
        graph.op("Identity", [rows], output="rows")
        graph.output("rows", TensorProto.FLOAT, [1, "n", SHAPE[1]])
        graph.save(tmp_path / "model.onnx", name="table")
    session = OnnxSession(tmp_path / "model.onnx", threads=1)
    binding, found = session.binding(), np.empty((1, 4, SHAPE[1]), np.float32)
    binding.input("ids", ids)
    binding.output("rows", found)
    session.run_bound(binding)
    np.testing.assert_array_equal(found[0], tensor.dequantize()[ids[0]])


class _RoundingDecoder(ReferenceDecoder):
    """The numpy decoder with activations in 8 bits by row."""

    def project(self, x: Floats, name: str) -> Floats:
        return _stored_product(x, self.load(name), 0, 1 << 30)

    def project_rows(self, x: Floats, name: str, start: int, stop: int) -> Floats:
        return _stored_product(x, self.load(name), start, stop)


def _stored_product(x: Floats, tensor: Tensor, start: int, stop: int) -> Floats:
    assert isinstance(tensor, BlockTensor)
    return product(x, tensor.rows(start, stop))


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_equals_numpy(tmp_path: Path, tied: bool) -> None:
    source = TinySource(tie_word_embeddings=tied)
    stored: dict[str, Tensor] = {}
    for number, info in enumerate(source.tensors):
        tensor = source.load(info.name)
        factors = np.random.default_rng(number // 3).uniform(0.5, 2, tensor.shape[-1]).astype(np.float32)
        same = "head" in info.name or "embed" in info.name or "down" in info.name or "o_proj" in info.name
        stored[info.name] = nearest_rows(tensor, factors if same else None) if len(tensor.shape) == 2 else tensor
    ids, config = random_ids(60), decoder_config(source.config)
    graph = tmp_path / "model.onnx"
    write_graph(source.config, stored.__getitem__, graph, tmp_path / "weights.bin", linear=Int8LinearBuilder)
    logits = run_graph(graph, config, ids, chunked(len(ids)))
    oracle = _RoundingDecoder(config, stored.__getitem__, ids)
    run_reference(oracle)
    exact = compare(np.concatenate(list(oracle.logits()), axis=1), logits, ids)
    rounding = compare(reference_logits(source.config, source.load, ids), logits, ids)
    # What floats round differently moves some code by one, which is far less than rounding to codes itself does.
    assert exact.mean_kl < rounding.mean_kl / 4
