"""The safetensors reader: what the library writes is read to the last bit, what is damaged is refused by name."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.safetensors import MAX_HEADER, read_header
from tests.fixtures.checkpoints import from_bfloat16, safetensors, to_bfloat16

RNG = np.random.default_rng(3)
TENSORS = {
    "a": RNG.normal(size=(3, 5)).astype(np.float32),
    "b.weight": RNG.normal(size=(2, 8)).astype(np.float16),
    "c": np.arange(7, dtype=np.int32),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(2.5, np.float32),
}


def file_of(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    return path


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_what_the_library_writes(tmp_path: Path) -> None:
    arrays = read_header(file_of(tmp_path, save(TENSORS, {"format": "np"})))
    assert arrays.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert arrays[name].shape == values.shape
        assert arrays[name].read().dtype == values.dtype
        assert np.array_equal(arrays[name].read(), values)


def test_bfloat16_is_read_in_parts(tmp_path: Path) -> None:
    """Never both forms of a large tensor at once: the table of a model of 1.5 billion takes a gigabyte as float32."""
    stored = to_bfloat16(np.random.default_rng(0).normal(size=(3001, 1000)))
    array = read_header(file_of(tmp_path, safetensors({"before": stored[:1], "x": stored})))["x"]
    tracemalloc.start()
    values = array.floats().values
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(values, from_bfloat16(stored))
    assert peak < 1.25 * values.nbytes


def test_the_file_is_read_not_mapped(tmp_path: Path) -> None:
    """A tensor that was read stays as it was when its file changes."""
    path = file_of(tmp_path, save(TENSORS))
    values = read_header(path)["a"].floats().values
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(values, TENSORS["a"])


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20))
def test_bfloat16_becomes_float32_exactly(tmp_path_factory: pytest.TempPathFactory, bits: list[int]) -> None:
    stored = np.array(bits, np.uint16)
    values = np.array([struct.unpack(">f", struct.pack(">HH", bit, 0))[0] for bit in bits], np.float32)
    path = file_of(tmp_path_factory.mktemp("bf16"), safetensors({"x": stored}))
    array = read_header(path)["x"]
    if np.isfinite(values).all():
        assert array.floats().values.tobytes() == values.tobytes()
    else:
        with pytest.raises(SourceError, match="no finite number"):
            array.floats()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named(dtype: str, bad: float, tmp_path: Path) -> None:
    values = np.ones((600, 3000), np.float32)
    values[599, 2] = bad
    stored = to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)
    path = file_of(tmp_path, safetensors({"fine": stored[:2], "some.weight": stored}))
    with pytest.raises(SourceError, match=r"model\.safetensors: tensor 'some\.weight' holds -?(nan|inf) at \[599, 2\]"):
        read_header(path)["some.weight"].floats()
    read_header(path)["fine"].floats()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "only a length": (struct.pack("<Q", 10), "header of 10 bytes is impossible"),
    "absurd length": (struct.pack("<Q", 2**63) + b"{}", "is impossible in 10 bytes"),
    "length past the limit": (struct.pack("<Q", MAX_HEADER + 1) + bytes(2**10), "is impossible"),
    "no JSON": (with_header(b"{nonsense"), "is not JSON"),
    "not UTF-8": (with_header(b'{"\xff": 1}'), "is not JSON"),
    "deep JSON": (with_header(b"[" * 100_000), "is not JSON"),
    "a list": (with_header([]), "no JSON object"),
    "an entry of another kind": (with_header({"x": 3}), "'x' has a header entry without"),
    "no type": (with_header({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "'x' has a header entry"),
    "negative extent": (with_header({"x": ENTRY | {"shape": [-2]}}, bytes(8)), "'x' has a header entry"),
    "extent that is no integer": (with_header({"x": ENTRY | {"shape": [2.0]}}, bytes(8)), "'x' has a header entry"),
    "extent of true": (with_header({"x": ENTRY | {"shape": [True, 2]}}, bytes(8)), "'x' has a header entry"),
    "three offsets": (with_header({"x": ENTRY | {"data_offsets": [0, 8, 9]}}, bytes(8)), "'x' has a header entry"),
    "offsets the wrong way": (with_header({"x": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)), "has -8 bytes"),
    "shape and size disagree": (with_header({"x": ENTRY | {"shape": [3]}}, bytes(8)), "8 bytes where F32 of shape"),
    "huge shape": (with_header({"x": ENTRY | {"shape": [2**40] * 8}}, bytes(8)), "where F32 of shape"),
    "past the end": (with_header({"x": ENTRY}, bytes(7)), "'x' ends at byte 77, past the end of the file"),
    "bytes of no tensor": (with_header({"x": ENTRY}, bytes(9)), "1 bytes at the end belong to no tensor"),
    "overlap": (
        with_header({"x": ENTRY, "y": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)),
        "'y' overlaps the one before",
    ),
    "the same bytes": (with_header({"x": ENTRY, "y": ENTRY}, bytes(8)), "overlaps the one before"),
    "a hole": (with_header({"x": ENTRY, "y": ENTRY | {"data_offsets": [12, 20]}}, bytes(20)), "'y' leaves a hole of 4"),
    "listed twice": (
        with_header(b'{"x": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "x": {}}'),
        "lists 'x' twice",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named(case: str, tmp_path: Path) -> None:
    data, words = DAMAGED[case]
    with pytest.raises(SourceError, match=r"model\.safetensors") as caught:
        read_header(file_of(tmp_path, data))
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("cut", [1, 9, 100, 400])
def test_a_cut_file_is_refused_when_it_is_opened(cut: int, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"past the end|impossible"):
        read_header(file_of(tmp_path, safetensors(TENSORS)[:-cut]))


def test_a_file_that_is_cut_later(tmp_path: Path) -> None:
    path = file_of(tmp_path, safetensors(TENSORS))
    arrays = read_header(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"tensor 'scalar' ends early"):
        arrays["scalar"].read()
    path.unlink()
    with pytest.raises(SourceError, match=r"tensor 'a' cannot be read: No such file"):
        arrays["a"].read()


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    data = safetensors({"x": np.zeros(4, np.float32)}, x={"dtype": "F12"})
    with pytest.raises(UnsupportedModel, match=r"tensor 'x' is of the unknown type 'F12'") as caught:
        read_header(file_of(tmp_path, data))
    assert "BF16" in caught.value.hint


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        read_header(tmp_path / "missing.safetensors")


VALID = safetensors(TENSORS)
HEADER_BYTES = 8 + struct.unpack("<Q", VALID[:8])[0]


@given(
    changes=st.dictionaries(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255), max_size=6),
    keep=st.integers(0, len(VALID)),
)
def test_any_change_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[int, int], keep: int
) -> None:
    """Whatever happens to the header, there are tensors within the file or an error that names it."""
    data = bytearray(VALID)
    for place, byte in changes.items():
        data[place] = byte
    for part in (bytes(data), bytes(data[:keep])):
        path = file_of(tmp_path_factory.mktemp("fuzz"), part)
        try:
            arrays = read_header(path)
        except SourceError as error:
            named = error.message
        else:
            named = path.name
            assert sum(array.nbytes for array in arrays.values()) <= len(part)
        assert path.name in named
