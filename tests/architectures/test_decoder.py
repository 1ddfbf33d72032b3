"""The float graph equals the numpy reference, whichever way tokens reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import ARCHITECTURES, architecture_for, write_graph
from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.weights import FloatTensor
from tests.architectures.graphs import Graph, expected, random_ids
from tests.fixtures.tiny import TinySource, tensor_shapes

TOLERANCE = 1e-3  # logits have a standard deviation of about 8
SHAPES = [
    {},
    {"tie_word_embeddings": False},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "tie_word_embeddings": False},
    {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64, "rope_theta": 100000.0},
    {"num_hidden_layers": 1, "intermediate_size": 96},
]


def close(actual, wanted) -> None:
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max() < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", [[90], [37, 1, 52], [80, *[1] * 10]], ids=["prefill", "chunks", "decode"])
def test_equals_the_reference(shape, sizes, tmp_path: Path) -> None:
    source = TinySource(**shape)
    ids = random_ids(90)
    close(Graph(source, tmp_path).steps(ids, sizes), expected(source, ids))


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_a_ragged_batch_equals_rows_on_their_own(shape, tmp_path: Path) -> None:
    """One run mixes a prompt's chunk, a chunk behind others, a single token, and a draft of three."""
    source = TinySource(**shape)
    graph = Graph(source, tmp_path, rows=4)
    sequences = [random_ids(length, seed=length) for length in (40, 70, 65, 13)]
    done = [0, 50, 64, 10]
    filled = [row[:before] or row[:1] for row, before in zip(sequences, done, strict=True)]  # row 0 is overwritten
    graph.run(filled, [0] * 4)
    rest = [row[before:] for row, before in zip(sequences, done, strict=True)]
    logits = graph.run(rest, done)
    wanted = [expected(source, row)[before:] for row, before in zip(sequences, done, strict=True)]
    close(logits, np.concatenate(wanted))


def test_padding_leaves_the_cache_of_other_positions_alone(tmp_path: Path) -> None:
    """After a padded run every row goes on as if it had been alone."""
    source = TinySource()
    graph = Graph(source, tmp_path, rows=3)
    sequences = [random_ids(length, seed=length) for length in (33, 5, 17)]
    graph.run([row[:-2] for row in sequences], [0] * 3)
    for left in (2, 1):
        at = [len(row) - left for row in sequences]
        logits = graph.run([[row[i]] for row, i in zip(sequences, at, strict=True)], at)
        close(logits, np.stack([expected(source, row)[i] for row, i in zip(sequences, at, strict=True)]))


@pytest.mark.parametrize("wanted", [[(0, 11)], [(1, 4), (0, 0), (1, 0), (1, 4)], []], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_only_where_they_are_asked_for(wanted, tied: bool, tmp_path: Path) -> None:
    """Any positions, in any order, repeated or none."""
    source = TinySource(tie_word_embeddings=tied)
    rows = [random_ids(12, seed=1), random_ids(5, seed=2)]
    every = [expected(source, row) for row in rows]
    logits = Graph(source, tmp_path, rows=2).run(rows, [0, 0], wanted)
    assert logits.shape == (len(wanted), 96)
    for actual, (row, at) in zip(logits, wanted, strict=True):
        close(actual, every[row][at])


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_graph(TinySource().config, TinySource().load, folder / "model.onnx", folder / "weights.bin")
    for name in ("model.onnx", "weights.bin"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_graphs_do_not_name_the_machine(tmp_path: Path) -> None:
    graph = Graph(TinySource(), tmp_path)
    assert str(tmp_path).encode() not in graph.path.read_bytes()


@pytest.mark.parametrize("name", list(tensor_shapes(TinySource(tie_word_embeddings=False).config)))
def test_a_tensor_of_another_shape_is_named(name: str, tmp_path: Path) -> None:
    source = TinySource(tie_word_embeddings=False)
    shape = source.load(name).shape
    wrong = FloatTensor(np.zeros((shape[0] + 1, *shape[1:]), np.float32))
    damaged = TinySource(tie_word_embeddings=False, overrides={name: wrong})
    with pytest.raises(SourceError, match=name.replace(".", r"\.")) as caught:
        write_graph(damaged.config, damaged.load, tmp_path / "model.onnx", tmp_path / "weights.bin")
    assert str(list(wrong.shape)) in caught.value.message
    assert str(list(shape)) in caught.value.message
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("lama", "llama"), ("LLaMA-2", "llama"), ("gemma", "gemma2"), ("minicpm3", "minicpm"), ("olmo", "olmo2")],
)
def test_an_unknown_architecture_is_told_its_nearest(name: str, nearest: str, tmp_path: Path) -> None:
    source = TinySource(model_type=name)
    with pytest.raises(UnsupportedModel, match=name) as caught:
        write_graph(source.config, source.load, tmp_path / "model.onnx", tmp_path / "weights.bin")
    assert f"the nearest is {nearest!r}" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_every_registered_architecture_is_found() -> None:
    assert {name: architecture_for(name) for name in ARCHITECTURES} == dict(ARCHITECTURES)
