"""The GGUF container, against the `gguf` package and against damage of every kind."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.errors import EdgeaiError, SourceError, UnsupportedModel
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_format import TENSOR_TYPES, GGUFFile
from tests.fixtures.gguf_files import GGUF, Entry, changed, tiny_llama

Write = Callable[[GGUF], Path]


def test_reads_what_the_reference_reader_reads(smollm_gguf: Path) -> None:
    ours, theirs = GGUFFile(smollm_gguf), gguf.GGUFReader(smollm_gguf)
    fields = {name: entry for name, entry in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == {name: entry.contents() for name, entry in fields.items()}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        raw = ours.tensors[tensor.name]
        assert raw.shape == tuple(reversed(tensor.shape.tolist()))
        assert raw.encoding == tensor.tensor_type.name
        assert (raw.start, raw.nbytes) == (tensor.data_offset, tensor.n_bytes)


def test_reads_what_the_reference_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    values: dict[str, Any] = {"uint8": 200, "int8": -3, "uint16": 60000, "int16": -300, "uint32": 4 * 10**9}
    values |= {"int32": -5, "uint64": 2**60, "int64": -(2**60)}
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, value)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_array("strings", ["", "é", "日本"])
    writer.add_array("floats", [0.5, -1.25])
    writer.add_custom_alignment(64)
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(path)
    expected = values | {"f64": 0.1, "yes": True, "strings": ["", "é", "日本"], "floats": [0.5, -1.25]}
    assert {key: file.metadata[key] for key in expected} == expected
    assert file.tensors["t"].start % 64 == 0
    assert file.raw(file.tensors["t"]).view("<f4").tolist() == [0, 1, 2, 3, 4, 5]


def test_table_of_types_is_the_reference_one() -> None:
    known = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert TENSOR_TYPES.items() <= known.items()


def _only(entry: Entry) -> GGUF:
    return GGUF(metadata={"general.architecture": "llama"}, tensors=[entry])


F32 = Entry("t", (2, 32), "F32", bytes(256))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GGUF(version=1), "GGUF version 1"),
        (GGUF(version=4), "GGUF version 4"),
        (GGUF(version=int.from_bytes(b"\x00\x00\x00\x03", "little")), "big-endian"),
        (GGUF(metadata={"general.alignment": 48}), "general.alignment is 48"),
        (GGUF(metadata={"general.alignment": 0}), "general.alignment is 0"),
        (GGUF(metadata={"general.alignment": "x"}), "general.alignment is 'x'"),
        (_only(Entry("t", (2, 33), "Q4_0", bytes(36))), "do not divide into Q4_0 blocks of 32"),
        (_only(Entry("t", (2, 32), "F32", bytes(32))), "past the end of the file"),
        (_only(Entry("t", (2, 32), "F32", bytes(256), offset=32)), "past the end of the file"),
        (_only(Entry("t", (2, 32), "F32", bytes(256), offset=2**62)), "past the end of the file"),
        (_only(Entry("t", (2, 32), "F32", bytes(256), offset=8)), "not a multiple of 32"),
        (_only(Entry("t", (0, 32), "F32", b"")), "impossible extents"),
        (_only(Entry("t", (2**50, 32), "F32", b"")), "impossible extents"),
        (_only(Entry("t", (2**39, 2**39, 2**39), "F32", b"")), "past the end of the file"),
        (_only(Entry("t", (), "F32", b"")), "0 dimensions"),
        (_only(Entry("t", (1, 1, 1, 1, 1), "F32", bytes(32))), "5 dimensions"),
        (_only(Entry("t", (2, 32), "?", bytes(256))), "unknown type 77"),
        (GGUF(tensors=[F32, F32]), "tensor 't' is listed twice"),
        (GGUF(tensors=[F32, Entry("u", (2, 32), "F32", bytes(256), offset=128)]), "'t' and 'u' overlap"),
    ],
)
def test_structural_problems_name_file_and_place(write_gguf: Write, model: GGUF, words: str) -> None:
    path = write_gguf(model)
    with pytest.raises(SourceError) as caught:
        GGUFFile(path)
    assert words in str(caught.value)
    assert "model.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"GG", "the file ends inside the magic number"),
        (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "metadata entries cannot fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors cannot fit"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(64), "the file ends inside the key"),
        (b"GGUF" + struct.pack("<IQQQ2sI", 3, 0, 1, 2, b"\xff\xff", 4) + bytes(64), "not valid UTF-8"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 13) + bytes(64), "unknown or nested value type 13"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1) + bytes(64), "unknown or nested value type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**61) + bytes(64), "elements of k cannot fit"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**40) + bytes(64), "strings of k cannot fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + struct.pack("<Q1sIB", 1, b"k", 0, 1) * 2, "'k' appears twice"),
    ],
)
def test_damaged_headers(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=words):
        GGUFFile(path)


def test_version_2_is_read_and_a_folder_is_not(tmp_path: Path, write_gguf: Write) -> None:
    model = tiny_llama()
    model.version = 2
    assert len(GGUFFile(write_gguf(model)).tensors) == 20
    with pytest.raises(SourceError, match="cannot read"):
        GGUFFile(tmp_path)


def test_truncation_anywhere_is_a_source_error(tmp_path: Path) -> None:
    whole = tiny_llama().to_bytes()
    path = tmp_path / "cut.gguf"
    header = whole.index(b"token_embd.weight")
    for size in [*range(0, header, 37), *range(header, header + 1600, 13), *range(header + 1600, len(whole), 997)]:
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError):
            GGUFSource(path)


def _flip(raw: bytes, flips: list[tuple[int, int]]) -> bytes:
    flipped = bytearray(raw)
    for place, bit in flips:
        flipped[place] ^= 1 << bit
    return bytes(flipped)


WHOLE = tiny_llama().to_bytes()
HEADER = WHOLE.index(b"output_norm.weight") + 64


def _complaint(path: Path) -> str:
    """Read everything there is; what is wrong, or nothing. Other exceptions than ours come through."""
    try:
        source = GGUFSource(path)
        source.tokenizer()
        for info in source.tensors:
            source.load(info.name)
    except EdgeaiError as error:
        return str(error)
    return ""


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_in_the_header_never_raise_anything_else(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    path = tmp_path / "flipped.gguf"
    path.write_bytes(_flip(WHOLE, flips))
    assert _complaint(path) == "" or "flipped.gguf" in _complaint(path)


@pytest.mark.parametrize("place", range(4, 24))
def test_flipped_bits_in_the_counts(tmp_path: Path, place: int) -> None:
    path = tmp_path / "flipped.gguf"
    for bit in range(8):
        path.write_bytes(_flip(WHOLE, [(place, bit)]))
        if place == 4 and bit == 0:  # version 2, which is laid out alike
            assert len(GGUFSource(path).tensors) == 20
            continue
        with pytest.raises(SourceError, match=r"flipped\.gguf"):
            GGUFSource(path)


def test_unsupported_is_told_from_damaged(write_gguf: Write) -> None:
    with pytest.raises(UnsupportedModel, match="architecture 'mamba' is not supported"):
        GGUFSource(write_gguf(changed(tiny_llama(), {"general.architecture": "mamba"})))
