"""Damaged GGUF files of every kind: whatever is wrong is told as an error of ours, or does no harm."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.errors import EdgeaiError, SourceError
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_blocks import DECODERS, FLOATS
from tests.fixtures.gguf_converter import GGUF_CASES, converted, convertible, tensors_of
from tests.fixtures.gguf_files import GGUF, tiny_llama
from tests.fixtures.sentencepieces import in_gguf
from tests.sources.test_gguf_experts import checkpoint, stacked
from tests.sources.test_gguf_split import parts

KINDS = ["gemma3_text-local-and-global", "phi3-longrope-short", "llama-llama3-rope", "minicpm-tied", "olmo2-untied"]


@cache
def sound(kind: str) -> bytes:
    """A file without damage."""
    if kind in KINDS:
        entry = next(convertible(entry) for entry in GGUF_CASES if entry.name == kind)
        return converted(entry, tensors_of(entry)).to_bytes()
    made: dict[str, GGUF] = {"experts": stacked(checkpoint()), "unigram": in_gguf("unigram untouched")}
    made |= {"bpe": in_gguf("bpe"), "part": parts()[0]}
    return made[kind].to_bytes()


def complaint(path: Path) -> str:
    """Read everything there is; what is wrong, or nothing. Other exceptions than ours come through."""
    try:
        source = GGUFSource(path)
        for info in source.tensors:
            source.load(info.name)
        source.tokenizer()
    except EdgeaiError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", [*KINDS, "experts", "unigram", "bpe", "part"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    whole = sound(kind)
    header = whole.index(b"output_norm.weight") if b"output_norm.weight" in whole else len(whole) // 2
    places = st.integers(0, header + 64)
    flips = data.draw(st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=4))
    damaged = bytearray(whole)
    for place, bit in flips:
        damaged[place] ^= 1 << bit
    path = tmp_path / "damaged-00001-of-00003.gguf"
    path.write_bytes(damaged)
    found = complaint(path)
    assert found == "" or "damaged-00001-of-00003.gguf" in found or "normalizer" in found


@pytest.mark.parametrize("encoding", sorted(DECODERS.keys() - FLOATS))
def test_random_bytes_are_values_or_refused_by_name(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    refused = 0
    for seed in range(8):
        model = tiny_llama(encoding, hidden=256)
        entry = model.tensor("blk.0.attn_k.weight")
        entry.data = np.random.default_rng(seed).bytes(len(entry.data))
        path.write_bytes(model.to_bytes())
        source = GGUFSource(path)
        try:
            assert np.isfinite(source.load("model.layers.0.self_attn.k_proj.weight").dequantize()).all()
        except SourceError as error:
            assert "random.gguf: tensor 'blk.0.attn_k.weight'" in error.message  # noqa: PT017
            refused += 1
    assert refused > 0  # one float16 of 32 is not finite


@pytest.mark.parametrize("kind", KINDS[:2])
def test_truncation(kind: str, tmp_path: Path) -> None:
    whole = sound(kind)
    path = tmp_path / "cut.gguf"
    for size in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError):
            GGUFSource(path)
