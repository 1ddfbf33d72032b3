"""Rotary frequencies of every kind of scaling. That they are transformers' is tested in tests/reference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeai.architectures.decoder import rope_tables
from edgeai.architectures.keys import Keys
from edgeai.architectures.registry import decoder_config, write_graph
from edgeai.architectures.rope import KINDS, Rope, context_lengths, read_rope, unified
from edgeai.errors import SourceError, UnsupportedModel
from edgeai.onnx_session import OnnxSession
from tests.fixtures.architectures import CASES, LLAMA3, LONGROPE, SHORT, YARN
from tests.fixtures.tiny import CONFIG, TinySource

PLAIN = 10000.0 ** -(np.arange(8) / 8)


def rope(scaling: Any, *, context: int | None = None, **config: Any) -> Rope:
    return read_rope(Keys({"max_position_embeddings": 512, "rope_scaling": scaling, **config}, context), 16)


def test_plain_frequencies_and_tables() -> None:
    plain = rope(None)
    np.testing.assert_allclose(plain.frequencies, PLAIN)
    assert (plain.factor, plain.size) == (1.0, 16)
    cos, sin = rope_tables(Rope(plain.frequencies, 2.0), 5)
    np.testing.assert_allclose(cos, 2 * np.cos(np.outer(np.arange(5), PLAIN)), rtol=1e-6)
    np.testing.assert_allclose(np.square(cos) + np.square(sin), 4, rtol=1e-6)


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_kinds_that_are_plain_within_the_context(kind: str) -> None:
    assert rope({"rope_type": kind, "factor": 8.0}) == rope(None)


def test_linear_divides_every_frequency() -> None:
    np.testing.assert_allclose(rope({"type": "linear", "factor": 4.0}).frequencies, PLAIN / 4)


def test_llama3_keeps_fast_frequencies_and_divides_slow_ones() -> None:
    ratio = rope(LLAMA3).frequencies / PLAIN
    turns = 64 * PLAIN / (2 * math.pi)
    assert (ratio[turns > 4] == 1).all()
    np.testing.assert_allclose(ratio[turns < 1], 1 / 8)
    between = ratio[(turns > 1) & (turns < 4)]
    assert len(between) > 0
    assert ((between > 1 / 8) & (between < 1)).all()


def test_yarn_keeps_fast_frequencies_divides_slow_ones_and_sharpens() -> None:
    scaled = rope(YARN)
    ratio = scaled.frequencies / PLAIN
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(1 / 4)
    assert (np.diff(ratio) <= 0).all()
    assert scaled.factor == pytest.approx(0.1 * math.log(4) + 1)
    assert rope({**YARN, "attention_factor": 0.7}).factor == 0.7


@pytest.mark.parametrize(("context", "factors"), [(None, "short"), (64, "short"), (65, "long"), (512, "long")])
def test_longrope_chooses_its_factors_by_the_context(context: int | None, factors: str) -> None:
    scaled = rope(LONGROPE, context=context, original_max_position_embeddings=64)
    np.testing.assert_allclose(PLAIN / scaled.frequencies, LONGROPE[f"{factors}_factor"])
    assert scaled.factor == pytest.approx(math.sqrt(1 + math.log(8) / math.log(64)))


def test_longrope_of_minicpm4_has_its_original_context_inside() -> None:
    inside = {**LONGROPE, "rope_type": "longrope", "original_max_position_embeddings": 512}
    scaled = rope(inside)
    np.testing.assert_allclose(PLAIN / scaled.frequencies, SHORT)
    assert scaled.factor == 1.0


def test_only_longrope_looks_for_its_original_context_beside_the_scaling() -> None:
    assert rope(YARN, original_max_position_embeddings=7) == rope(YARN)
    assert rope(LONGROPE, original_max_position_embeddings=7) != rope(LONGROPE)


@pytest.mark.parametrize(
    ("scaling", "config", "lengths"),
    [
        (None, {}, (512, 512)),
        (LLAMA3, {}, (512, 512)),
        (LONGROPE, {"original_max_position_embeddings": 64}, (64, 512)),
        (YARN, {}, (512, 512)),
        ({**YARN, "factor": 8.0}, {}, (512, 1024)),
    ],
)
def test_context_lengths(scaling: Any, config: dict[str, Any], lengths: tuple[int, int]) -> None:
    assert context_lengths(Keys({"max_position_embeddings": 512, "rope_scaling": scaling, **config})) == lengths


def test_parameters_as_transformers_5_writes_them() -> None:
    plain = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    new = {**plain, "rope_parameters": {"rope_theta": 5e5, **LLAMA3}}
    assert decoder_config(new) == decoder_config({**plain, "rope_theta": 5e5, "rope_scaling": LLAMA3})
    assert unified(CONFIG) is CONFIG


def test_parameters_of_local_and_global_layers_as_transformers_5_writes_them() -> None:
    case = next(case for case in CASES if case.architecture == "gemma3_text")
    keys = ("rope_theta", "rope_scaling", "rope_local_base_freq")
    new = {key: value for key, value in case.config.items() if key not in keys}
    new["rope_parameters"] = {
        "full_attention": {"rope_theta": case.config["rope_theta"], **case.config["rope_scaling"]},
        "sliding_attention": {"rope_theta": case.config["rope_local_base_freq"], "rope_type": "default"},
    }
    assert decoder_config(new) == case.decoder


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="rope_scaling 'spiral'") as caught:
        rope({"rope_type": "spiral"})
    assert all(kind in caught.value.hint for kind in KINDS)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "linear"}, r"rope_scaling\.factor is missing"),
        ({"type": "linear", "factor": -1}, r"rope_scaling\.factor is -1"),
        ({**LLAMA3, "factor": None}, r"rope_scaling\.factor is missing"),
        ({**LLAMA3, "low_freq_factor": 4.0}, "low_freq_factor 4.0 and high_freq_factor 4.0"),
        ({"type": "longrope", "short_factor": [1.0]}, r"short_factor is a list of 1, not a list of 8"),
        ({"type": "longrope"}, r"rope_scaling\.short_factor is missing"),
        ({"type": "longrope", "short_factor": [1.0] * 7 + [0]}, r"short_factor has the entry 0"),
        ({"type": "longrope", "short_factor": "12345678"}, r"short_factor is '12345678', not a list"),
        ({**YARN, "beta_fast": "fast"}, r"beta_fast is 'fast'"),
    ],
)
def test_impossible_parameters_are_named(scaling: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        rope(scaling)


def test_the_kernel_rotates_multiples_of_sixteen_values() -> None:
    with pytest.raises(UnsupportedModel, match="24 values of a head are rotated"):
        read_rope(Keys({}), 24)


@pytest.mark.parametrize("context", [100, 128, 1000, 4096])
def test_tables_in_the_graph_are_those_of_every_position(context: int, tmp_path: Path) -> None:
    """Made of coarse and fine ones when the graph is loaded; a factor is on them once."""
    source = TinySource(
        max_position_embeddings=context, rope_scaling={"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}
    )
    path = tmp_path / "model.onnx"
    config = write_graph(source.config, source.load, path, tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    attention = next(node for node in model.graph.node if node.op_type == "GroupQueryAttention")
    names = list(attention.input[7:9])
    while model.graph.output:
        model.graph.output.pop()
    made = {output for node in model.graph.node for output in node.output}
    for name in names:
        if name not in made:  # stored whole
            node = onnx.helper.make_node("Identity", [name], [f"{name}.out"])
            model.graph.node.append(node)
        model.graph.output.add(name=name if name in made else f"{name}.out")
    keep = [output.name for output in model.graph.output]
    needed = wanted_nodes(model, keep)
    del model.graph.node[:]
    model.graph.node.extend(needed)
    del model.graph.input[:]
    path.write_bytes(model.SerializeToString())
    tables = OnnxSession(path, threads=1).run(keep, {})
    rotation = config.layers[0].rope
    assert rotation is not None
    for found, expected in zip(tables, rope_tables(rotation, context), strict=True):
        np.testing.assert_allclose(found[:context], expected, atol=1e-6)


def wanted_nodes(model: onnx.ModelProto, outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on, in their order."""
    needed, kept = set(outputs), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    return kept[::-1]
