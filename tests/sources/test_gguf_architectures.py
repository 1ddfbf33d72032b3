"""Every architecture out of a GGUF file: configuration and tensors are those of the checkpoint it was made from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.registry import ARCHITECTURES as GRAPHS
from edgeai.architectures.registry import decoder_config, reference_logits
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_architectures import ARCHITECTURES
from tests.fixtures.architectures import Case
from tests.fixtures.gguf_converter import GGUF_CASES, converted, convertible, tensors_of
from tests.fixtures.gguf_files import GGUF
from tests.fixtures.gguf_golden import golden_cases, ids, llama_cpp_logits, load_golden, positions

Write = Callable[[GGUF], Path]
ROUNDING = 1e-4  # float32 sums in another order
GELU_TABLE = 5e-3  # llama.cpp looks GELU up in a table of float16
# Words of one meaning: transformers takes either, and a converter knows only one of them.
SAME = {"hidden_act", "hidden_activation", "architectures", "pad_token_id", "bos_token_id", "eos_token_id"}


def test_every_architecture_has_a_case() -> None:
    assert {entry.model_type for entry in ARCHITECTURES.values()} >= {entry.architecture for entry in GGUF_CASES}
    assert {entry.architecture for entry in GGUF_CASES} == set(GRAPHS) - {"mistral"}  # published as llama
    assert all(entry.word == word for word, entry in ARCHITECTURES.items())


@pytest.mark.parametrize("entry", GGUF_CASES, ids=lambda entry: entry.name)
def test_configuration_and_tensors_come_back(entry: Case, write_gguf: Write) -> None:
    entry = convertible(entry)
    tensors = tensors_of(entry)
    source = GGUFSource(write_gguf(converted(entry, tensors)))
    assert decoder_config(source.config, entry.context) == entry.decoder
    assert {info.name for info in source.tensors} == set(tensors)
    for name, values in tensors.items():
        ours = source.load(name).dequantize()
        offset = 1.0 if entry.architecture.startswith("gemma") and "norm" in name else 0.0
        assert np.abs(ours - values).max() <= offset * 2**-24, name  # 1 was added in float32, and taken away again


@pytest.mark.parametrize("entry", GGUF_CASES, ids=lambda entry: entry.name)
def test_entries_are_those_of_the_checkpoint(entry: Case, write_gguf: Write) -> None:
    """By their own names, whether edgeai's architectures read them or not."""
    entry = convertible(entry)
    config = GGUFSource(write_gguf(converted(entry, tensors_of(entry)))).config
    common = (entry.config.keys() & config.keys()) - SAME - {"rope_scaling"}
    assert len(common) >= 10
    assert {key: config[key] for key in common} == {key: entry.config[key] for key in common}
    theirs = entry.config.get("rope_scaling") or {}
    ours = config["rope_scaling"] or {}
    assert {key: ours.get(key, ours.get("rope_type")) for key in theirs} == dict(theirs)


@pytest.mark.parametrize("entry", golden_cases(), ids=lambda entry: entry.name)
def test_logits_are_those_of_llama_cpp(entry: Case, write_gguf: Write) -> None:
    """What is read from the file computes what llama.cpp computed from it: names, order of rows, every constant."""
    source = GGUFSource(write_gguf(converted(entry, tensors_of(entry))))
    theirs = load_golden()[entry.name]
    ours = reference_logits(decoder_config(source.config, entry.context), source.load, ids())[list(positions(entry))]
    assert theirs.std() > 1
    assert np.abs(ours - theirs).max() < (GELU_TABLE if entry.architecture.startswith("gemma") else ROUNDING)


def test_golden_logits_are_of_these_cases() -> None:
    assert load_golden().keys() == {entry.name for entry in golden_cases()}


@pytest.mark.peer
@pytest.mark.parametrize("entry", golden_cases(), ids=lambda entry: entry.name)
def test_golden_logits_are_still_those_of_llama_cpp(entry: Case, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the extra `peers` is not installed")
    assert np.abs(load_golden()[entry.name] - llama_cpp_logits(entry, tmp_path)).max() < ROUNDING
