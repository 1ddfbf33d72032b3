"""The GGUF container: header, metadata and tensor table, read from a memory map with every length checked.

Layout (little endian), versions 2 and 3, after the format's specification in ggml's docs/gguf.md::

    magic "GGUF", version u32, tensor count u64, metadata count u64
    metadata:  key string, type u32, value       (string: u64 length + UTF-8; array: type u32, count u64, values)
    tensors:   name string, dimensions u32, extent u64 each (fastest first), type u32, offset u64
    padding to the alignment, then the data section the offsets refer to

Nothing here allocates by a count the file claims: each value is read, and checked against the end of the file, in turn.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_EXTENT = 2**40  # values; keeps products of four extents far from being meaningful sizes
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
DAMAGED = "the file is damaged or was not downloaded completely; fetch it again"

# Tensor types by number: name, values per block, bytes per block (ggml.h, enum ggml_type).
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor as the file lists it: `shape` with rows first (numpy order), `start` from the file's first byte."""

    name: str
    shape: tuple[int, ...]
    encoding: str
    start: int
    nbytes: int


class GGUFFile:
    """A parsed GGUF file: `metadata` by key, `tensors` by name, and their bytes through a read-only memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _map(path)
        cursor = _Cursor(self._data, path.name)
        tensor_count, key_count = _read_preamble(cursor)
        self.metadata: dict[str, Any] = _read_metadata(cursor, key_count)
        self.tensors = _read_tensors(cursor, tensor_count, _alignment(self.metadata, path.name))

    def raw(self, tensor: RawTensor) -> NDArray[np.uint8]:
        """The tensor's bytes, not copied."""
        return np.frombuffer(self._data, dtype=np.uint8, count=tensor.nbytes, offset=tensor.start)


class _Cursor:
    """A position in the file; every read is checked and every complaint names file and place."""

    def __init__(self, data: mmap.mmap | bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0
        self.size = len(data)

    def fail(self, what: str) -> SourceError:
        return SourceError(f"{self.name}: {what} (at byte {self.at})", DAMAGED)

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fail(f"the file ends inside {what}: {count} bytes needed, {self.size - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def scalar(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.scalar("Q", what), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} is not valid UTF-8") from error

    def room_for(self, count: int, least: int, what: str) -> None:
        """Refuse a count that cannot be true because the rest of the file is too short for it."""
        if count * least > self.size - self.at:
            raise self.fail(f"{count} {what} cannot fit into the {self.size - self.at} bytes that are left")


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # mmap refuses empty files so
        raise SourceError(f"{path.name} is empty", DAMAGED) from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def _read_preamble(cursor: _Cursor) -> tuple[int, int]:
    magic = cursor.take(4, "the magic number")
    if magic != MAGIC:
        raise SourceError(f"{cursor.name} is not a GGUF file: it starts with {magic!r}", "pass a .gguf file")
    version = cursor.scalar("I", "the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "a big-endian GGUF file" if swapped else f"GGUF version {version}"
        raise UnsupportedModel(f"{cursor.name}: {what} is not supported", "convert it to little-endian GGUF version 3")
    tensors = cursor.scalar("Q", "the tensor count")
    keys = cursor.scalar("Q", "the metadata count")
    cursor.room_for(keys, 13, "metadata entries")
    cursor.room_for(tensors, 32, "tensors")
    return tensors, keys


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.string(f"the key of metadata entry {index}")
        if key in metadata:
            raise cursor.fail(f"metadata key {key!r} appears twice")
        metadata[key] = _read_value(cursor, cursor.scalar("I", f"the type of {key}"), key)
    return metadata


def _read_value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == STRING:
        return cursor.string(f"the value of {key}")
    if kind == ARRAY:
        return _read_array(cursor, key)
    return cursor.scalar(_scalar_code(cursor, kind, key), f"the value of {key}")


def _read_array(cursor: _Cursor, key: str) -> list[Any]:
    kind = cursor.scalar("I", f"the element type of {key}")
    count = cursor.scalar("Q", f"the length of {key}")
    if kind == STRING:
        cursor.room_for(count, 8, f"strings of {key}")
        return [cursor.string(f"element {index} of {key}") for index in range(count)]
    code = _scalar_code(cursor, kind, key)
    width = struct.calcsize("<" + code)
    cursor.room_for(count, width, f"elements of {key}")
    values: list[Any] = np.frombuffer(cursor.take(count * width, key), dtype=np.dtype("<" + code)).tolist()
    return values


def _scalar_code(cursor: _Cursor, kind: int, key: str) -> str:
    if kind not in SCALARS:
        raise cursor.fail(f"{key} has the unknown or nested value type {kind}")
    return SCALARS[kind]


def _alignment(metadata: Mapping[str, Any], name: str) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise SourceError(f"{name}: general.alignment is {alignment!r}, not a small power of two", DAMAGED)
    return alignment


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, RawTensor]:
    entries = [_read_entry(cursor, index, alignment) for index in range(count)]
    base = cursor.at + -cursor.at % alignment
    tensors: dict[str, RawTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise cursor.fail(f"tensor {name!r} is listed twice")
        tensors[name] = _place(cursor, name, shape, kind, base + offset)
    _check_overlap(cursor, tensors)
    return tensors


def _read_entry(cursor: _Cursor, index: int, alignment: int) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string(f"the name of tensor {index}")
    dimensions = cursor.scalar("I", f"the dimensions of tensor {name!r}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(f"tensor {name!r} has {dimensions} dimensions")
    extents = tuple(cursor.scalar("Q", f"the extents of tensor {name!r}") for _ in range(dimensions))
    if not all(1 <= extent <= MAX_EXTENT for extent in extents):
        raise cursor.fail(f"tensor {name!r} has the impossible extents {extents}")
    kind = cursor.scalar("I", f"the type of tensor {name!r}")
    offset = cursor.scalar("Q", f"the offset of tensor {name!r}")
    if offset % alignment:
        raise cursor.fail(f"tensor {name!r} starts at offset {offset}, which is not a multiple of {alignment}")
    return name, extents[::-1], kind, offset


def _place(cursor: _Cursor, name: str, shape: tuple[int, ...], kind: int, start: int) -> RawTensor:
    if kind not in TENSOR_TYPES:
        raise UnsupportedModel(
            f"{cursor.name}: tensor {name!r} has the unknown type {kind}",
            "a newer edgeai may know it; or use a Q4_0 file",
        )
    encoding, block, width = TENSOR_TYPES[kind]
    if shape[-1] % block:
        raise cursor.fail(
            f"tensor {name!r}: rows of {shape[-1]} values do not divide into {encoding} blocks of {block}"
        )
    values = 1
    for extent in shape:
        values *= extent
    nbytes = values // block * width
    if nbytes > cursor.size - start:
        raise cursor.fail(
            f"tensor {name!r} ends at byte {start + nbytes}, past the end of the file ({cursor.size} bytes)"
        )
    return RawTensor(name, shape, encoding, start, nbytes)


def _check_overlap(cursor: _Cursor, tensors: Mapping[str, RawTensor]) -> None:
    ordered = sorted(tensors.values(), key=attrgetter("start"))
    for first, second in pairwise(ordered):
        if first.start + first.nbytes > second.start:
            raise cursor.fail(f"tensors {first.name!r} and {second.name!r} overlap")
