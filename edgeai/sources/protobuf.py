"""Reading protocol buffers without their schema: fields by number, every length checked.

The encoding is that of protobuf.dev/programming-guides/encoding: each field is a key (number and wire type, a varint)
and a value; messages inside messages are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgeai.errors import SourceError
from edgeai.sources.gguf_format import DAMAGED

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10  # bytes

Value = int | bytes


def fields(data: bytes, name: str) -> Iterator[tuple[int, Value]]:
    """Number and value of each field in order; numbers of fixed width as their bytes.

    Raises `SourceError` that names the file `name` for data that is cut or of another kind.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at, name)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(data, at, name)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at, name)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise SourceError(f"{name}: wire type {kind} at byte {at} is none of a protocol buffer", DAMAGED)
        if size > len(data) - at:
            raise SourceError(f"{name}: ends inside a field of {size} bytes at byte {at}", DAMAGED)
        yield key >> 3, data[at : at + size]
        at += size


def float32(value: Value, name: str) -> float:
    """A number of fixed width as a float. Raises `SourceError` for a field of another kind."""
    if not isinstance(value, bytes) or len(value) != 4:
        raise SourceError(f"{name}: a field that is to be a float is none", DAMAGED)
    number: float = struct.unpack("<f", value)[0]
    return number


def text(value: Value, name: str) -> str:
    """A field as text. Raises `SourceError` for a field of another kind."""
    try:
        return raw(value, name).decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: a field that is to be text is not UTF-8", DAMAGED) from error


def raw(value: Value, name: str) -> bytes:
    """A field of bytes, or a message. Raises `SourceError` for a field of another kind."""
    if not isinstance(value, bytes):
        raise SourceError(f"{name}: a field that is to be bytes is a number", DAMAGED)
    return value


def integer(value: Value, name: str) -> int:
    """A varint. Raises `SourceError` for a field of another kind."""
    if not isinstance(value, int):
        raise SourceError(f"{name}: a field that is to be a number is none", DAMAGED)
    return value


def _varint(data: bytes, at: int, name: str) -> tuple[int, int]:
    """Seven bits a byte, lowest first; and where the next field is."""
    value = 0
    for count in range(LONGEST_VARINT):
        if at + count >= len(data):
            break
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, at + count + 1
    raise SourceError(f"{name}: ends inside a number at byte {at}, or is no protocol buffer", DAMAGED)
