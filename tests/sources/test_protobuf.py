"""Protocol buffers field by field: what the library writes, and what is cut or of another kind."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.errors import SourceError
from edgeai.sources.protobuf import fields, float32, integer, raw, text

Field = tuple[int, int | bytes]


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def encoded(entries: list[Field], *, fixed: bool = False) -> bytes:
    out = b""
    for number, value in entries:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif fixed and len(value) in (4, 8):
            out += varint(number << 3 | (5 if len(value) == 4 else 1)) + value
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


@given(
    st.lists(st.tuples(st.integers(1, 2**28), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=300)))),
    st.booleans(),
)
def test_fields_come_back(entries: list[Field], fixed: bool) -> None:
    assert list(fields(encoded(entries, fixed=fixed), "x")) == entries


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(data: bytes) -> None:
    with contextlib.suppress(SourceError):
        assert sum(1 for _ in fields(data, "x")) <= len(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a\x05abc", "ends inside a field of 5 bytes"),
        (b"\x0d\x00\x00", "ends inside a field of 4 bytes"),
        (b"\x0a" + varint(2**63) + b"abc", "ends inside a field"),
        (b"\x08", "ends inside a number at byte 1"),
        (b"\x08\xff\xff", "ends inside a number"),
        (b"\x08" + b"\xff" * 11, "is no protocol buffer"),
        (b"\x0b\x00", "wire type 3 at byte 1"),
    ],
)
def test_damage_is_named(data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=r"^tokenizer: ") as caught:
        list(fields(data, "tokenizer"))
    assert words in caught.value.message


def test_values() -> None:
    assert float32(struct.pack("<f", -1.5), "x") == -1.5
    assert text("é".encode(), "x") == "é"
    assert (raw(b"1", "x"), integer(3, "x")) == (b"1", 3)


@pytest.mark.parametrize(
    ("read", "value"), [(float32, 3), (float32, b"12345678"), (text, 3), (text, b"\xff"), (raw, 3), (integer, b"")]
)
def test_fields_of_another_kind(read: Callable[[Any, str], Any], value: Any) -> None:
    with pytest.raises(SourceError, match="x: a field that is to be"):
        read(value, "x")
