"""The manifest of a bundle: which files, of which digests, in which chunks. It is checked before it is used."""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from edgeai.bundle.chunking import LARGEST, LARGEST_MEAN
from edgeai.errors import BundleError
from edgeai.recipe import NAME_PATTERN, Strict, describe_errors

SCHEMA_VERSION: Literal[1] = 1
LARGEST_MANIFEST = 8 << 20  # bytes: 120,000 chunks
MOST_FILES = 4096
MOST_BYTES = 1 << 40  # of a file
DIGEST_BYTES = 32
Kind = Literal["model", "system"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_PART = r"[A-Za-z0-9_][A-Za-z0-9._+,@-]{0,99}"
_FILE_NAME = re.compile(rf"{_PART}(/{_PART}){{0,5}}")
_ENTRY = struct.Struct(f"<{DIGEST_BYTES}sI")


class Chunk(NamedTuple):
    """A piece of a file: its sha256, and its size in bytes."""

    digest: bytes
    size: int


class FileRecord(Strict):
    """One file: `chunks` is base64 of 36 bytes for each, a sha256 and the size (little endian), in order."""

    size: int = Field(ge=0, le=MOST_BYTES)
    sha256: Sha256
    mean: int = Field(ge=1 << 10, le=LARGEST_MEAN)  # of its chunks' sizes: how others are cut to be compared
    chunks: str

    @field_validator("chunks")
    @classmethod
    def _is_whole(cls, value: str) -> str:
        try:
            packed = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        if len(packed) % _ENTRY.size:
            raise ValueError("half a chunk")
        return value

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        sizes = [chunk.size for chunk in self.each_chunk()]
        if any(not 0 < size <= LARGEST for size in sizes):
            raise ValueError(f"a chunk has no bytes, or more than {LARGEST}")
        if sum(sizes) != self.size:
            raise ValueError(f"its chunks have {sum(sizes)} bytes, and the file {self.size}")
        return self

    def each_chunk(self) -> Iterator[Chunk]:
        """Its chunks, in order."""
        return (Chunk(*entry) for entry in _ENTRY.iter_unpack(base64.b64decode(self.chunks)))


class Manifest(Strict):
    """The whole of it. `metadata` is for whoever installs that kind."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Kind
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(default="", max_length=100)
    files: dict[str, FileRecord] = Field(min_length=1, max_length=MOST_FILES)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_safe(self) -> Self:
        check_names(self.files)
        return self

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files.values())


def check_names(names: Iterable[str]) -> None:
    """Names stay inside a folder, and are different on every filesystem. Raises `ValueError`."""
    seen: set[str] = set()
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for a file")
        if name.lower() in seen:
            raise ValueError(f"{name!r} is there twice")
        seen.add(name.lower())
    for name in seen:
        parts = name.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise ValueError(f"{name!r} lies in a file")


def pack_chunks(chunks: Iterable[Chunk]) -> str:
    """Chunks as a record keeps them."""
    return base64.b64encode(b"".join(_ENTRY.pack(*chunk) for chunk in chunks)).decode()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is signed: the same content always gives the same bytes."""
    return _canonical(manifest.model_dump(mode="json"))


def parse_manifest(data: bytes) -> Manifest:
    """Raises `BundleError` for anything but what `manifest_bytes` gives."""
    try:
        document = json.loads(data, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the bundle's manifest cannot be read: {error}", "fetch or export it again") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(f"the bundle has schema version {version}, newer than {SCHEMA_VERSION}", "update edgeai")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"the bundle's manifest is not valid: {describe_errors(error)[:500]}") from None
    if manifest_bytes(manifest) != data:
        raise BundleError("the bundle's manifest is not in its canonical form", "it was written by something else")
    return manifest


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found
