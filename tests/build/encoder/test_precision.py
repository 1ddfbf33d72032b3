"""Layers that hurt most are found by measuring, not by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.encoder_int8 import FloatGraph
from edgeai.build.encoder.precision import agreement, choose_precise, near
from edgeai.encoder.encoder import EncoderGraph
from edgeai.encoder.pooling import normalized, pool
from edgeai.encoder.tokens import EncoderTokenizer, Tokens
from edgeai.progress import silent
from tests.fixtures.encoders import tokenizer_document, weights, words, write_float_graph


def compute(graph: EncoderGraph, sequences: Sequence[Tokens]) -> np.ndarray:
    return np.concatenate([normalized(pool(graph.run([sequence]), "mean")) for sequence in sequences])


@pytest.fixture
def sequences() -> list[Tokens]:
    tokenizer = EncoderTokenizer(tokenizer_document(), 32)
    return tokenizer.encode([words(count, 31 * count) for count in range(3, 23)])


def test_good_enough_needs_nothing(tmp_path: Path, sequences: list[Tokens]) -> None:
    graph = FloatGraph(write_float_graph(tmp_path, weights()))
    reference = compute(EncoderGraph(graph.path, threads=1), sequences)
    assert choose_precise(graph, sequences, 10, reference, compute, silent) == ()


def test_the_layer_that_hurts_is_kept_precise(tmp_path: Path, sequences: list[Tokens]) -> None:
    """One channel of the table is huge, and only the layer `value` has anything to do with the others."""
    values = weights()
    values["table"][:, 5] *= 300
    for name in ("query", "key", "up"):
        values[name][:] = 0
    values["value"][5] = 0  # what it makes of the small channels is all that distinguishes texts
    values["value"] *= 500
    graph = FloatGraph(write_float_graph(tmp_path, values))
    reference = compute(EncoderGraph(graph.path, threads=1), sequences)
    chosen = choose_precise(graph, sequences, 10, reference, compute, silent)
    assert "value" in chosen
    assert len(chosen) <= 2

    def least(precise: Sequence[str]) -> float:
        probe = tmp_path / "probe.onnx"
        graph.write_probe(probe, [name for name in graph.linears if name not in precise], precise, tables=True)
        return agreement(compute(EncoderGraph(probe, threads=1), sequences), reference).least

    assert least(chosen) > least(()) + 0.001


def test_agreement_of_vectors_and_of_logits() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (6, 9)).astype(np.float32)
    assert agreement(vectors * 3, vectors).least == pytest.approx(1)
    turned = vectors.copy()
    turned[4] *= -1
    found = agreement(turned, vectors)
    assert (found.mean, found.least) == (pytest.approx(4 / 6), pytest.approx(-1))
    logits = vectors[:, :1]
    assert agreement(logits * 2 + 7, logits).mean == pytest.approx(1)
    expected = np.corrcoef(vectors[:, 0], vectors[:, 1])[0, 1]
    assert agreement(vectors[:, 1:2], logits).mean == pytest.approx(expected, abs=1e-5)


def test_cosines_are_rounded_down() -> None:
    assert near(0.999999) == 0.99999
    assert near(0.98999) == 0.98999
