"""The graph writer: where bytes lie, and who shares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeai.architectures.graph import ALIGNMENT, GraphBuilder
from edgeai.onnx_session import OnnxSession
from tests.architectures.graphs import Graph, stored
from tests.fixtures.tiny import TinySource


def locations(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of every initializer that lies outside the graph."""
    initializers = onnx.load(path, load_external_data=False).graph.initializer
    found = {}
    for tensor in initializers:
        if tensor.external_data:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            found[tensor.name] = (int(entries["offset"]), int(entries["length"]))
    return found


@pytest.mark.parametrize("form", ["q4_0", "q4_1", "q8_0", "8-bit affine"])
def test_a_tied_table_is_stored_once(form: str, tmp_path: Path) -> None:
    table = stored(form, (96, 64), spread=1.0)
    graph = Graph(TinySource(overrides={"model.embed_tokens.weight": table}), tmp_path)
    places = locations(graph.path)
    assert places["embedding.head_codes"] == places["embedding.codes"]
    assert places["embedding.codes"][1] == 96 * 64 * table.bits // 8  # type: ignore[union-attr]


def test_a_tied_float_table_is_one_initializer(tmp_path: Path) -> None:
    sizes = [length for _, length in locations(Graph(TinySource(), tmp_path).path).values()]
    assert sizes.count(96 * 64 * 4) == 1


def test_weights_are_aligned_and_do_not_overlap(tmp_path: Path) -> None:
    graph = Graph(TinySource(tie_word_embeddings=False), tmp_path)
    places = sorted(locations(graph.path).values())
    assert all(offset % ALIGNMENT == 0 for offset, _ in places)
    ends = [0, *(offset + length for offset, length in places)]
    assert all(end <= offset for end, (offset, _) in zip(ends, places, strict=False))
    assert ends[-1] == (tmp_path / "weights.bin").stat().st_size


def test_what_is_written_is_what_is_computed_with(tmp_path: Path) -> None:
    """Weights of several types and layouts, an alias, and constants that are stored once."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3, 4)).astype(np.float32)
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        graph.weight("padding", np.zeros(5, np.uint8))
        columns = graph.weight("columns", matrix.T)  # not contiguous
        flat = graph.alias("flat", columns, np.dtype(np.float32), [12])
        one, again = graph.constant(np.array([1.5], np.float32)), graph.constant(np.array([1.5], np.float32))
        other = graph.constant(np.array(1.5, np.float32))
        graph.input("x", TensorProto.FLOAT, [1])
        product = graph.op("Mul", [graph.op("Add", [flat, "x"]), one])
        graph.op("Identity", [product], output="y")
        graph.output("y", TensorProto.FLOAT, [12])
        graph.save(tmp_path / "model.onnx", name="test")
    assert one == again != other
    session = OnnxSession(tmp_path / "model.onnx", threads=1)
    result = session.run(["y"], {"x": np.array([2.0], np.float32)})[0]
    assert np.allclose(result, (matrix.T.ravel() + 2) * 1.5)


def test_an_empty_weight_takes_no_room(tmp_path: Path) -> None:
    with GraphBuilder(tmp_path / "weights.bin") as graph:
        graph.weight("empty", np.zeros((0, 4), np.float32))
        graph.weight("full", np.ones(3, np.float32))
        graph.save(tmp_path / "model.onnx", name="test")
    assert locations(tmp_path / "model.onnx") == {"empty": (0, 0), "full": (0, 12)}
