"""The float graph of every architecture equals the numpy reference; transformers is asked in tests/reference."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.architectures.reference import ReferenceDecoder
from edgeai.architectures.registry import ARCHITECTURES, decoder_config, reference_logits, run_reference
from edgeai.sources.weights import Tensor
from tests.architectures.graphs import FORMS, Graph, kept, random_ids, stored
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint

TOLERANCE = 1e-3


class Checkpoint:
    """A case with random weights, as `Graph` wants its source."""

    def __init__(self, case: Case) -> None:
        self.config: Mapping[str, Any] = case.config
        self.context = case.context
        self.weights = RandomCheckpoint(case.decoder)

    def load(self, name: str) -> Tensor:
        return self.weights.load(name)


def test_every_architecture_has_a_case() -> None:
    assert {case.architecture for case in CASES} == set(ARCHITECTURES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graph_equals_reference(case: Case, tmp_path: Path) -> None:
    """A prompt in chunks, single tokens, and then two ragged rows at once."""
    source = Checkpoint(case)
    ids, other = random_ids(90), random_ids(70, seed=1)
    wanted = reference_logits(case.decoder, source.load, ids)
    assert wanted.std() > 0.5
    graph = Graph(source, tmp_path, rows=2)
    assert np.abs(graph.steps(ids[:80], [61, 15, 1, 1, 1, 1]) - wanted[:80]).max() < TOLERANCE
    rows = graph.run([ids[:40], other[:64]], [0, 0], wanted=[(1, 63), (0, 3)])
    second = reference_logits(case.decoder, source.load, other)
    assert np.abs(rows - [second[63], wanted[3]]).max() < TOLERANCE
    rows = graph.run([ids[40:90], other[64:]], [40, 64])
    assert np.abs(rows - np.concatenate([wanted[40:], second[64:]])).max() < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graph_and_reference_read_the_same_tensors(case: Case, tmp_path: Path) -> None:
    reference, graph = RandomCheckpoint(case.decoder), Checkpoint(case)
    reference_logits(case.decoder, reference.load, [1, 2, 3])
    Graph(graph, tmp_path)
    assert graph.weights.asked == reference.asked


class Recorder(ReferenceDecoder):
    """Keeps what every matrix is multiplied with, as calibration does."""

    def project(self, x, name):
        self.seen = [*getattr(self, "seen", []), (name, x.shape)]
        return super().project(x, name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_product_passes_through_project(case: Case) -> None:
    """By the checkpoint's own names, in the order of the layers, with its input's features."""
    weights = RandomCheckpoint(case.decoder)
    recorder = Recorder(case.decoder, weights.load, random_ids(5))
    run_reference(recorder)
    matrices = {name for name in weights.asked if name.endswith("_proj.weight")}
    assert {name for name, _ in recorder.seen} == matrices
    assert len(recorder.seen) == len(matrices)
    assert all(shape[1] == weights.load(name).shape[1] for name, shape in recorder.seen)
    assert all(shape[0] == 5 for name, shape in recorder.seen if ".experts." not in name)
    layers = [int(name.split(".")[2]) for name, _ in recorder.seen]
    assert layers == sorted(layers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_segments_are_independent(case: Case) -> None:
    """Sequences that are concatenated give what each gives alone."""
    load = RandomCheckpoint(case.decoder).load
    first, second = random_ids(40), random_ids(33, seed=1)
    both = ReferenceDecoder(case.decoder, load, [*first, *second], segments=[40, 33])
    run_reference(both)
    alone = []
    for ids in (first, second):
        decoder = ReferenceDecoder(case.decoder, load, ids)
        run_reference(decoder)
        alone.append(decoder.hidden)
    np.testing.assert_allclose(both.hidden, np.concatenate(alone), atol=1e-4)


def test_every_token_goes_to_as_many_experts_as_the_configuration_says() -> None:
    mixed = [case for case in CASES if any(layer.mixture for layer in case.decoder.layers)]
    assert len(mixed) > 1
    for case in mixed:
        recorder = Recorder(case.decoder, RandomCheckpoint(case.decoder).load, random_ids(7))
        run_reference(recorder)
        for number, layer in enumerate(case.decoder.layers):
            at = f"model.layers.{number}.mlp.experts."
            rows = sum(shape[0] for name, shape in recorder.seen if name.startswith(at) and "down_proj" in name)
            assert rows == (7 * layer.mixture.experts_per_token if layer.mixture else 0)


WITH_BIASES = ("qwen2-tied", "qwen3-windows-biases", "glm4-biases", "granite-biases")
FORMED = [case for case in CASES if case.name in WITH_BIASES]


@pytest.mark.parametrize("form", [*FORMS, "mixed"])
@pytest.mark.parametrize("case", FORMED, ids=lambda case: case.name)
def test_biases_and_norms_with_every_form_of_weights(case: Case, form: str, tmp_path: Path) -> None:
    """Stacked or, where matrices lie on different grids, one by one; exact when the graph computes in float."""
    source = Checkpoint(case)
    floats = source.load

    def load(name: str) -> Tensor:
        tensor = floats(name)
        if not name.endswith("_proj.weight"):
            return tensor
        own = FORMS[zlib.crc32(name.encode()) % len(FORMS)] if form == "mixed" else form
        return stored(own, tensor.shape, zlib.crc32(name.encode()), spread=0.5 / tensor.shape[1] ** 0.5)

    source.load = load
    ids = random_ids(50)
    wanted = reference_logits(case.decoder, kept(load), ids)
    actual = Graph(source, tmp_path, exact=True).steps(ids, [30, 18, 1, 1])
    assert np.abs(actual - wanted).max() < TOLERANCE * np.abs(wanted).max()


def test_segments_have_to_cover_the_tokens() -> None:
    with pytest.raises(ValueError, match="segments of 3 tokens do not cover 5"):
        ReferenceDecoder(CASES[0].decoder, RandomCheckpoint(CASES[0].decoder).load, [1] * 5, segments=[1, 2])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_context_is_the_package_s(case: Case) -> None:
    """A shorter context only shortens the tables, and a window that never ends is none."""
    short = decoder_config(case.config, 16)
    assert short.context_length == 16
    assert all(layer.window is None for layer in short.layers)
