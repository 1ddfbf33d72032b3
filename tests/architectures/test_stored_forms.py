"""Every form a weight may be stored in: the graph holds the source's values, and offsets to eight bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import reference_logits
from edgeai.build.validate import compare
from edgeai.sources.weights import Tensor
from tests.architectures.graphs import FORMS, GRIDS, Graph, expected, kept, random_ids, stored
from tests.fixtures.tiny import TinySource, tensor_shapes

IDS = random_ids(60)
STEPS = [40, 17, 1, 1, 1]
EXACT = 1e-4  # of the largest logit: float32 sums in another order
INT8_KL = 0.05  # nats per token; random weights make logits far more sensitive than trained ones
TABLE = "model.embed_tokens.weight"


def matrices(form: str, **config) -> dict[str, Tensor]:
    """All projections of the tiny model in one form."""
    shapes = tensor_shapes(TinySource(**config).config)
    named = enumerate(name for name in shapes if name.endswith("_proj.weight"))
    return {name: stored(form, shapes[name], seed) for seed, name in named}


def assert_exact(source: TinySource, folder: Path) -> None:
    """The weights are right when the graph computes in float."""
    wanted = reference_logits(source.config, kept(source.load), IDS)
    actual = Graph(source, folder, exact=True).steps(IDS, STEPS)
    assert np.abs(actual - wanted).max() < EXACT * np.abs(wanted).max()


def assert_published(source: TinySource, folder: Path) -> None:
    """As published, with int8 activations, the graph stays near."""
    actual = Graph(source, folder).steps(IDS, STEPS)
    assert compare(expected(source, IDS), actual, IDS).mean_kl < INT8_KL


@pytest.mark.parametrize("check", [assert_exact, assert_published])
@pytest.mark.parametrize("form", FORMS)
def test_projections(form: str, check, tmp_path: Path) -> None:
    check(TinySource(overrides=matrices(form)), tmp_path)


@pytest.mark.parametrize("check", [assert_exact, assert_published])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("form", FORMS)
def test_token_table(form: str, tied: bool, check, tmp_path: Path) -> None:
    overrides = {TABLE: stored(form, (96, 64), spread=1.0)}
    if not tied:
        overrides["lm_head.weight"] = stored(form, (96, 64), seed=1, spread=1.0)
    check(TinySource(overrides=overrides, tie_word_embeddings=tied), tmp_path)


@pytest.mark.parametrize("check", [assert_exact, assert_published])
@pytest.mark.parametrize(
    "forms",
    [("q4_0", "q4_1", "q8_0"), ("q4_1", "float16", "q4_1"), ("8-bit affine", "q8_0", "float32")],
    ids=" ".join,
)
def test_projections_on_different_grids_are_not_stacked(forms: tuple[str, ...], check, tmp_path: Path) -> None:
    overrides = matrices("q4_1")
    for name, tensor in overrides.items():
        for part, form in zip(("q_proj", "k_proj", "v_proj"), forms, strict=True):
            if part in name:
                overrides[name] = stored(form, tensor.shape, seed=9)  # type: ignore[arg-type]
        if "up_proj" in name:
            overrides[name] = stored("q8_0", tensor.shape, seed=10)  # type: ignore[arg-type]
    check(TinySource(overrides=overrides), tmp_path)


@pytest.mark.parametrize("check", [assert_exact, assert_published])
@pytest.mark.parametrize("shared", [True, False], ids=["one order", "many orders"])
@pytest.mark.parametrize("form", ["q4_0", "4-bit own zeros", "q4_1"])
def test_projections_with_columns_in_another_order(form: str, shared: bool, check, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    orders = {64: rng.permutation(64), 128: rng.permutation(128)}
    overrides = {}
    for name, tensor in matrices(form).items():
        columns = orders[tensor.shape[1]] if shared else rng.permutation(tensor.shape[1])
        overrides[name] = replace(tensor, columns=columns)  # type: ignore[type-var]
    check(TinySource(overrides=overrides), tmp_path)


def test_table_and_head_of_different_forms(tmp_path: Path) -> None:
    overrides = {
        TABLE: stored("q8_0", (96, 64), spread=1.0),
        "lm_head.weight": stored("q4_1", (96, 64), seed=1, spread=1.0),
    }
    assert_exact(TinySource(overrides=overrides, tie_word_embeddings=False), tmp_path)


def test_the_measure_would_see_a_wrong_weight(tmp_path: Path) -> None:
    """One code of one matrix off by one is more than the tolerance."""
    overrides = matrices("q4_1")
    source = TinySource(overrides=overrides)
    wanted = reference_logits(source.config, kept(source.load), IDS)
    tensor = overrides["model.layers.0.self_attn.v_proj.weight"]
    tensor.codes[3, 5] ^= 1  # type: ignore[union-attr]
    actual = Graph(source, tmp_path, exact=True).steps(IDS, STEPS)
    assert np.abs(actual - wanted).max() > EXACT * np.abs(wanted).max()


def test_grids_cover_both_widths_with_and_without_minimums() -> None:
    assert {(bits, affine) for bits, _, _, affine, _ in GRIDS.values()} == {(b, a) for b in (4, 8) for a in (0, 1)}
