"""The safetensors container: a header checked to the last byte, tensors read one at a time.

Layout, after the format's documentation (huggingface/safetensors)::

    header length u64 (little endian), header (JSON), data
    header:  {name: {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [start, stop]}, ..., "__metadata__": {...}}

Offsets count from the first byte of the data; tensors fill it without holes and without sharing bytes. Tensors are read
from the file, not mapped: the pages of a map would count as memory of the build.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_format import DAMAGED
from edgeai.sources.weights import FloatTensor

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # bytes; the format's own limit
METADATA = "__metadata__"
LARGEST = 2**53  # of an extent or an offset

# Bits per value of every type of the format; numpy's type where there is one.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
NUMPY: Mapping[str, str] = {
    "BOOL": "u1",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
}
FLOATS = ("F32", "F16", "BF16")  # what plain tensors may be
CHECKED_AT_ONCE = READ_AT_ONCE = 1 << 20  # values


@dataclass(frozen=True, slots=True)
class StoredArray:
    """A tensor as its file lists it; `start` counts from the file's first byte."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def where(self) -> str:
        """File and tensor, as errors name them."""
        return f"{self.path.name}: tensor {self.name!r}"

    def read(self) -> NDArray[Any]:
        """The values as numpy has them; bfloat16 as its bits (uint16). Raises `SourceError` when bytes are missing."""
        dtype = np.dtype(NUMPY[self.dtype])
        return self._read(dtype, 0, self.nbytes // dtype.itemsize).reshape(self.shape)

    def floats(self) -> FloatTensor:
        """The tensor as float32, or float16 where it is stored so. Every value has to be a finite number."""
        values = self._widened() if self.dtype == "BF16" else self.read()
        _require_finite(values, self.where)
        return FloatTensor(values)

    def _widened(self) -> NDArray[np.float32]:
        """bfloat16, which is the upper half of a float32, read part by part: never both forms of the whole tensor."""
        bits = np.empty(self.shape, np.uint32)
        flat = bits.reshape(-1)
        for start in range(0, flat.size, READ_AT_ONCE):
            part = flat[start : start + READ_AT_ONCE]
            part[:] = self._read(np.dtype("<u2"), start, part.size)
            part <<= 16
        return bits.view(np.float32)

    def _read(self, dtype: np.dtype[Any], start: int, count: int) -> NDArray[Any]:
        """`count` values from the `start`-th on."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start + start * dtype.itemsize)
                values = np.fromfile(file, dtype, count)
        except OSError as error:
            raise SourceError(f"{self.where} cannot be read: {error.strerror}", "check the file") from error
        if values.size != count:
            raise SourceError(f"{self.where} ends early: the file was cut while it was read", DAMAGED)
        return values


def read_header(path: Path) -> dict[str, StoredArray]:
    """The tensors of a file by name, in the order of their data.

    Raises `SourceError` for a file that is cut or contradicts itself, `UnsupportedModel` for an unknown type.
    """
    header, start, size = _read_json(path)
    entries = [_entry(path, name, entry, start) for name, entry in header.items() if name != METADATA]
    ordered = sorted(entries, key=attrgetter("start", "nbytes"))
    at = start
    for array in ordered:
        if array.start != at:
            what = "overlaps the one before it" if array.start < at else f"leaves a hole of {array.start - at} bytes"
            raise SourceError(f"{array.where} {what}", DAMAGED)
        at += array.nbytes
        if at > size:
            raise SourceError(f"{array.where} ends at byte {at}, past the end of the file ({size} bytes)", DAMAGED)
    if at != size:
        raise SourceError(f"{path.name}: {size - at} bytes at the end belong to no tensor", DAMAGED)
    return {array.name: array for array in ordered}


def _read_json(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the data starts, and the size of the file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(LENGTH_BYTES)
            if len(prefix) < LENGTH_BYTES:
                raise SourceError(f"{path.name} is no safetensors file: it has {size} bytes", DAMAGED)
            (length,) = struct.unpack("<Q", prefix)
            if length > min(MAX_HEADER, size - LENGTH_BYTES):
                raise SourceError(f"{path.name}: a header of {length} bytes is impossible in {size} bytes", DAMAGED)
            text = file.read(length)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    return _parse(text, path.name), LENGTH_BYTES + length, size


def _parse(text: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
            raise SourceError(f"{name}: the header lists {repeated!r} twice", DAMAGED)
        return entries

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name}: the header is not JSON: {error}", DAMAGED) from error
    if not isinstance(header, dict):
        raise SourceError(f"{name}: the header is no JSON object", DAMAGED)
    return header


def _entry(path: Path, name: str, entry: Any, data: int) -> StoredArray:
    where = f"{path.name}: tensor {name!r}"
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise SourceError(f"{where} has a header entry without type, shape or offsets", DAMAGED)
    if dtype not in DTYPE_BITS:
        known = ", ".join(DTYPE_BITS)
        raise UnsupportedModel(f"{where} is of the unknown type {dtype!r}", f"types of the format: {known}")
    start, stop = offsets
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if (stop - start) * 8 != bits:
        what = f"{stop - start} bytes where {dtype} of shape {list(shape)} takes {bits / 8:g}"
        raise SourceError(f"{where} has {what}", DAMAGED)
    return StoredArray(path, name, dtype, shape, data + start, stop - start)


def _sizes(values: Any) -> tuple[int, ...] | None:
    """A list of whole numbers from 0 on (JSON's `true` is none), or None for anything else."""
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < LARGEST for value in values):
        return None
    return tuple(values)


def _require_finite(values: NDArray[Any], where: str) -> None:
    """Look at a part at a time: the answer for a whole tensor would take as much memory as its bytes."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, CHECKED_AT_ONCE):
        finite = np.isfinite(flat[start : start + CHECKED_AT_ONCE])
        if not finite.all():
            at = start + int(np.argmin(finite))
            place = [int(index) for index in np.unravel_index(at, values.shape)] if values.ndim else []
            raise SourceError(
                f"{where} holds {flat[at]} at {place}, which is no finite number",
                "the weights are damaged, or overflowed when they were converted; get them again",
            )
