"""Writing bundles. The same files and keys always give the same bytes."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgeai.bundle.chunking import cut, mean_for
from edgeai.bundle.head import Head
from edgeai.bundle.manifest import LARGEST_MANIFEST, Chunk, FileRecord, Kind, Manifest, pack_chunks
from edgeai.errors import BundleError, InvalidInput
from edgeai.package import durable
from edgeai.progress import Progress, silent
from edgeai.recipe import describe_errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Contents:
    """What a bundle is to hold: files by the names that they have in it, and `metadata` for whoever installs it."""

    kind: Kind
    name: str
    files: Mapping[str, Path]
    version: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    target: Path, contents: Contents, keys: Sequence[Ed25519PrivateKey], progress: Progress = silent
) -> Head:
    """Write a bundle, signed by `keys`; an existing file is replaced when the new one is whole.

    Files are read twice, and a few megabytes of them are in memory at a time. Raises `InvalidInput` for contents that
    cannot be, `OutOfDisk`.
    """
    head = Head.sign(describe(contents, progress), keys)
    save(target, head, contents.files, progress)
    return head


def save(target: Path, head: Head, files: Mapping[str, Path], progress: Progress = silent) -> None:
    """Write the bundle of `head` from the files that it describes. Raises as `write_bundle` does."""

    def data() -> Iterator[bytes]:
        done = 0
        for piece in stream(head, files):
            yield piece
            done += len(piece)
            progress("writing the bundle", done, head.size_bytes)

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        durable.write_file(target, data(), size=head.size_bytes)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise InvalidInput(
                f"{target} would have {durable.megabytes(head.size_bytes)}, more than this disk's files may have",
                "FAT takes 4 GB: format the stick as exFAT or ext4",
            ) from error
        raise


def describe(contents: Contents, progress: Progress = silent) -> Manifest:
    """Read the files and cut them. Raises `InvalidInput` for names, numbers or sizes that cannot be in a bundle."""
    records, done = {}, 0
    total = sum(path.stat().st_size for path in contents.files.values())
    for name, path in sorted(contents.files.items()):
        records[name] = record = describe_file(path)
        done += record.size
        progress("cutting into chunks", done, total)
    try:
        manifest = Manifest(
            kind=contents.kind,
            name=contents.name,
            version=contents.version,
            files=records,
            metadata=dict(contents.metadata),
        )
    except ValidationError as error:
        raise InvalidInput(f"this cannot be a bundle: {describe_errors(error)}") from None
    if sum(len(record.chunks) for record in records.values()) > LARGEST_MANIFEST - (1 << 20):
        raise InvalidInput("this is too much for one bundle", "leave something out")
    return manifest


def describe_file(path: Path) -> FileRecord:
    """Digest and chunks of one file."""
    size, digest, chunks = path.stat().st_size, hashlib.sha256(), []
    mean = mean_for(size)
    with path.open("rb") as file:
        for piece in cut(file, mean):
            digest.update(piece)
            chunks.append(Chunk(hashlib.sha256(piece).digest(), len(piece)))
    return FileRecord(
        size=sum(chunk.size for chunk in chunks), sha256=digest.hexdigest(), mean=mean, chunks=pack_chunks(chunks)
    )


def stream(head: Head, files: Mapping[str, Path], start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a bundle from `start` to `stop`, made from its files, which are compared with its digests.

    Raises `BundleError` for a file that has changed.
    """
    end = head.size_bytes if stop is None else stop
    if start < len(head.data):
        yield head.data[start:end]
    written: set[Chunk] = set()
    for name, record in head.manifest.files.items():
        with files[name].open("rb", buffering=0) as file:
            at = 0
            for chunk in record.each_chunk():
                where = head.offsets[chunk]
                if chunk not in written and where < end and start < where + chunk.size:
                    file.seek(at)
                    data = file.read(chunk.size)
                    if hashlib.sha256(data).digest() != chunk.digest:
                        raise BundleError(f"{files[name]} is not what it was when it was read first", "try again")
                    yield data[max(0, start - where) : end - where]
                written.add(chunk)
                at += chunk.size
