"""Layouts of quantized matrices, against plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.architectures.embedding import write_embedding
from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.linear import LinearBuilder, centred, pack_codes, pack_zero_points, stack
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import BlockTensor, FloatTensor
from tests.architectures.graphs import FORMS, GRIDS, stored


def plain_pack(codes, bits: int, block_size: int) -> list[list[list[int]]]:
    """MatMulNBits' documentation as loops: two 4-bit codes a byte, the first in its low half."""
    rows = []
    for row in codes.tolist():
        blocks = [row[at : at + block_size] for at in range(0, len(row), block_size)]
        if bits == 4:
            blocks = [[block[i] + 16 * block[i + 1] for i in range(0, block_size, 2)] for block in blocks]
        rows.append(blocks)
    return rows


@given(
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_packing_equals_the_loops(bits: int, block_size: int, rows: int, blocks: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, blocks * block_size), dtype=np.uint8)
    packed = pack_codes(codes, bits, block_size)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, blocks, block_size * bits // 8)
    assert packed.tolist() == plain_pack(codes, bits, block_size)


@given(bits=st.sampled_from([4, 8]), rows=st.integers(1, 5), blocks=st.integers(1, 7), seed=st.integers(0, 2**32))
def test_packed_zero_points_equal_the_loops(bits: int, rows: int, blocks: int, seed: int) -> None:
    """As MatMulNBits documents them: two a byte, the first in its low half, each row padded to a whole byte."""
    points = np.random.default_rng(seed).integers(0, 2**bits, (rows, blocks), dtype=np.uint8)
    plain = []
    for row in points.tolist():
        padded = [*row, 0]
        plain.append(row if bits == 8 else [padded[i] + 16 * padded[i + 1] for i in range(0, blocks, 2)])
    assert pack_zero_points(points, bits).tolist() == plain


@pytest.mark.parametrize("form", list(GRIDS))
def test_rows_are_taken_with_all_that_belongs_to_them(form: str) -> None:
    tensor = stored(form, (9, 128))
    order = np.random.default_rng(0).permutation(9)
    assert isinstance(tensor, BlockTensor)
    assert np.array_equal(tensor.take(order).dequantize(), tensor.dequantize()[order])
    assert np.array_equal(tensor.rows(2, 99).dequantize(), tensor.dequantize()[2:])


@pytest.mark.parametrize("bits", [4, 8])
def test_own_zero_points_are_subtracted_from_codes(bits: int) -> None:
    codes = np.array([[0, 1, 15, 7], [9, 9, 9, 9]], np.uint8).repeat(16, axis=1)
    scales = np.array([[0.5, 2.0], [1.0, 0.25]], np.float16)
    points = np.array([[0, 15], [9, 1]], np.uint8)
    values = BlockTensor(bits, 32, 99, codes, scales, zero_points=points).dequantize()
    assert values[:, ::16].tolist() == [[0.0, 0.5, 0.0, -16.0], [0.0, 0.0, 2.0, 2.0]]


def scattered(rows: int, columns: Sequence[int] | None = None, *, form: str = "q4_0") -> BlockTensor:
    tensor = stored(form, (rows, 64), seed=rows)
    assert isinstance(tensor, BlockTensor)
    order = np.random.default_rng(1).permutation(64) if columns is None else np.array(columns)
    return replace(tensor, columns=order)


def test_columns_say_which_column_of_the_matrix_each_is() -> None:
    tensor = scattered(5)
    assert tensor.columns is not None
    plain = replace(tensor, columns=None).dequantize()
    for place, column in enumerate(tensor.columns):
        assert np.array_equal(tensor.dequantize()[:, column], plain[:, place])
    assert np.array_equal(tensor.rows(1, 3).dequantize(), tensor.dequantize()[1:3])


def test_matrices_of_one_order_are_stacked_and_of_two_are_not() -> None:
    parts = [scattered(3), scattered(5)]
    assert np.array_equal(stack(parts).dequantize(), np.concatenate([part.dequantize() for part in parts]))
    with pytest.raises(ValueError, match="different grids"):
        stack([scattered(3), scattered(3, range(64))])


def test_x_is_put_in_order_once(tmp_path: Path) -> None:
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        linear = LinearBuilder(graph)
        for x, name in (("x", "a"), ("x", "b"), ("y", "c")):
            linear.matmul(x, name, scattered(4))
        graph.save(tmp_path / "model.onnx", name="test")
    nodes = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node
    assert [node.op_type for node in nodes].count("Gather") == 2


def test_a_table_in_another_order_is_refused(tmp_path: Path) -> None:
    with GraphBuilder(tmp_path / "weights.bin") as graph, pytest.raises(UnsupportedModel, match="another order"):
        write_embedding(LinearBuilder(graph), scattered(4))


def test_own_zero_points_are_stored_as_integers(tmp_path: Path) -> None:
    """Floats in their place would make the operator about thirty times slower, and block sums are not needed."""
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        LinearBuilder(graph).matmul("x", "w", stored("4-bit own zeros", (4, 96)))
        graph.save(tmp_path / "model.onnx", name="test")
    written = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    stored_as = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in written.initializer}
    assert stored_as["w.zero_points"] == (onnx.TensorProto.UINT8, (4, 2))
    assert {node.op_type for node in written.node} == {"Cast", "MatMulNBits"}


@pytest.mark.parametrize("form", FORMS)
def test_stacked_matrices_keep_their_values(form: str) -> None:
    parts = [stored(form, (rows, 64), seed=rows) for rows in (3, 1, 8)]
    assert np.array_equal(stack(parts).dequantize(), np.concatenate([part.dequantize() for part in parts]))
    assert stack(parts[:1]) is parts[0]


def test_matrices_on_different_grids_are_not_stacked() -> None:
    with pytest.raises(ValueError, match="different grids"):
        stack([stored("q4_0", (4, 64)), stored("q4_1", (4, 64))])


@pytest.mark.parametrize("form", list(GRIDS))
def test_centring_changes_no_value(form: str) -> None:
    tensor = stored(form, (9, 128))
    assert isinstance(tensor, BlockTensor)
    assert np.array_equal(centred(tensor).dequantize(), tensor.dequantize())


def test_codes_are_centred_where_they_leave_room() -> None:
    """The shift is taken up to the last code that fits."""
    tensor = BlockTensor(8, 16, 32, np.zeros((1, 16), np.uint8), np.ones((1, 1), np.float16))
    for largest, zero_point in ((63, 128), (159, 128), (160, 32), (255, 32)):
        tensor.codes[0, 3] = largest
        assert centred(tensor).zero_point == zero_point
    below = replace(tensor, zero_point=200)
    below.codes[:] = 72
    assert centred(below).codes.max() == 0
    below.codes[0, 0] = 71
    assert centred(below) is below


@pytest.mark.parametrize(("bits", "block_size"), [(2, 32), (5, 32), (4, 8), (4, 48), (8, 1)])
@pytest.mark.parametrize("table", [True, False])
def test_a_grid_that_the_operators_lack_is_refused(bits: int, block_size: int, table: bool, tmp_path: Path) -> None:
    codes, scales = np.zeros((4, 48), np.uint8), np.ones((4, 48 // block_size), np.float16)
    tensor = BlockTensor(bits, block_size, 0, codes, scales)
    with GraphBuilder(tmp_path / "weights.bin") as graph, pytest.raises(UnsupportedModel, match=f"{bits} bits in bl"):
        if table:
            write_embedding(LinearBuilder(graph), tensor)
        else:
            LinearBuilder(graph).matmul("x", "some.weight", tensor)
    assert (tmp_path / "weights.bin").stat().st_size == 0


def test_block_sums_are_shared(tmp_path: Path) -> None:
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        linear = LinearBuilder(graph)
        for name in ("a", "b"):
            linear.matmul("x", name, stored("q4_1", (4, 64)))
        linear.matmul("y", "c", stored("q4_1", (4, 64)))
        linear.matmul("x", "d", FloatTensor(np.zeros((4, 64), np.float32)))
        graph.save(tmp_path / "model.onnx", name="test")

    nodes = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node
    assert [node.op_type for node in nodes].count("ReduceSum") == 2  # of x and of y


def test_scales_of_all_columns_are_stored_as_one(tmp_path: Path) -> None:
    """Nothing but their cast is left to be folded when the graph is loaded."""
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        LinearBuilder(graph).matmul("x", "w", stored("q4_1", (4, 64)))
        graph.save(tmp_path / "model.onnx", name="test")
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    product = next(node for node in model.node if node.op_type == "MatMulNBits")
    assert [node.op_type for node in model.node if product.input[2] in node.output] == ["Cast"]
    scales = next(tensor for tensor in model.initializer if tensor.name == "w.scales")
    assert list(scales.dims) == [4, 4]  # two blocks, and one for each digit of the offsets


def test_small_scales_take_few_bytes_and_are_folded(tmp_path: Path) -> None:
    """On disk one byte for each block; once loaded, nothing but the operator and its constants."""
    tensor = stored("4-bit super-blocks and minimums", (64, 256))
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        x = graph.input("x", onnx.TensorProto.FLOAT, [1, "new", 256])
        graph.output(LinearBuilder(graph).matmul(x, "w", tensor), onnx.TensorProto.FLOAT, [1, "new", 64])
        graph.save(tmp_path / "model.onnx", name="test")
    further = 128  # columns: eight sums in a block of 32 for each digit, and zeros up to four blocks
    own = 64 * further // 2 + 64 * further // 32 * 2  # their codes and float16 scales
    assert (tmp_path / "weights.bin").stat().st_size == 64 * 256 // 2 + 64 * 8 + 64 * 4 * 2 + own

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    zeros = {"Shape": 1, "Concat": 2, "ConstantOfShape": 2}  # two lengths, made once for all products of a run
    assert kinds == Counter(zeros) + Counter({"MatMulNBits": 1, "Reshape": 1, "ReduceSum": 1, "Concat": 1})
