"""Putting a bundle's files together in their places: what is there already is kept, the rest comes from near or far.

A place is a file that grows to its size, or a partition. Nothing else is remembered: whoever starts again compares what
is in the places, chunk by chunk, with what should be. So a power cut costs no more than what was not on the disk yet,
and half a write is noticed as anything else that is wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeai.bundle.chunking import cut
from edgeai.bundle.manifest import Chunk, FileRecord
from edgeai.bundle.reader import Bundle
from edgeai.errors import BundleError, OutOfDisk
from edgeai.package import durable
from edgeai.progress import Progress, silent

SYNC_BYTES = 16 << 20  # written between two flushes: what a cut can cost, and what waits in memory
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Seed:
    """A file or partition that may have chunks of `record`, the file of the bundle that it resembles."""

    path: Path
    record: FileRecord


@dataclass
class Tally:
    """Bytes by where they came from."""

    there: int = 0  # in their place already
    reused: int = 0  # from seeds, or another place
    fetched: int = 0  # chunks of the bundle
    wanted: dict[Chunk, list[tuple[int, int]]] = field(default_factory=dict)  # descriptor and offset of its places

    @property
    def missing(self) -> int:
        """Bytes that have not been found anywhere."""
        return sum(chunk.size for chunk in self.wanted)


class Assembly:
    """The places of some of a bundle's files, open for writing."""

    def __init__(
        self, places: Mapping[Path, FileRecord], progress: Progress = silent, *, partitions: bool = False
    ) -> None:
        """`partitions`: the places are there already, and have the sizes that they have."""
        self._places = places
        self._partitions = partitions
        self._progress = progress
        self._stack = contextlib.ExitStack()
        self._descriptors: dict[Path, int] = {}
        self._unsynced: dict[int, int] = {}
        self.tally = Tally()

    def __enter__(self) -> Assembly:
        """Open the places and look what is in them."""
        try:
            for path, record in self._places.items():
                self._descriptors[path] = self._open(path, record)
            self._look()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reuse(self, seeds: Iterable[Seed]) -> None:
        """Take chunks from files that may have them, as long as something is missing."""
        for seed in seeds:
            if not self.tally.wanted:
                return
            self._progress(f"comparing with {seed.path}")
            with contextlib.suppress(OSError), seed.path.open("rb") as file:  # one that is gone helps nobody
                for data in cut(file, seed.record.mean):
                    chunk = Chunk(hashlib.sha256(data).digest(), len(data))
                    if chunk in self.tally.wanted:
                        self.tally.reused += chunk.size
                        self._place(chunk, data)

    def fetch(self, bundle: Bundle) -> None:
        """Bring what is still missing. Raises as `Bundle.chunks` does, and `OutOfDisk`; what came is kept."""
        missing, total = list(self.tally.wanted), self.tally.missing
        try:
            for chunk, data in bundle.chunks(missing):
                self._place(chunk, data)
                self.tally.fetched += chunk.size
                self._progress("receiving", self.tally.fetched, total)
        finally:
            self.sync()

    def sync(self) -> None:
        """Everything that was placed is on the disk."""
        for descriptor, waiting in self._unsynced.items():
            if waiting:
                os.fsync(descriptor)
                self._unsynced[descriptor] = 0

    def verify(self) -> None:
        """Read everything back from the disk. Raises `BundleError` for a disk that does not keep what it is given."""
        self.sync()
        for path, record in self._places.items():
            descriptor = self._descriptors[path]
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, not from memory
            if _digest(descriptor, record.size) != record.sha256:
                raise BundleError(f"{path} is not what was written: the disk may be failing", "try another card")

    def _open(self, path: Path, record: FileRecord) -> int:
        if self._partitions:  # exclusively: not one that is mounted
            descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            self._stack.callback(os.close, descriptor)
            room = os.lseek(descriptor, 0, os.SEEK_END)
            if room < record.size:
                message = f"{path} has {durable.megabytes(room)}, and {durable.megabytes(record.size)} are to go there"
                raise OutOfDisk(message, "the partition cannot grow: write a newer image to the card")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._stack.callback(os.close, descriptor)
            os.ftruncate(descriptor, record.size)
        self._unsynced[descriptor] = 0
        return descriptor

    def _look(self) -> None:
        """Find out which chunks are in their places; those that are in another place are copied."""
        found: dict[Chunk, tuple[int, int]] = {}
        done, total = 0, sum(record.size for record in self._places.values())
        for path, record in self._places.items():
            descriptor, at = self._descriptors[path], 0
            empty = _is_empty(descriptor)
            for chunk in record.each_chunk():
                there = not empty and _is(os.pread(descriptor, chunk.size, at), chunk)
                if there:
                    found.setdefault(chunk, (descriptor, at))
                    self.tally.there += chunk.size
                else:
                    self.tally.wanted.setdefault(chunk, []).append((descriptor, at))
                at += chunk.size
            done += record.size
            self._progress("looking what is here", done, total)
        for chunk in found.keys() & self.tally.wanted.keys():
            self.tally.reused += chunk.size
            self._place(chunk, os.pread(found[chunk][0], chunk.size, found[chunk][1]))

    def _place(self, chunk: Chunk, data: bytes) -> None:
        for descriptor, at in self.tally.wanted.pop(chunk):
            _write_at(descriptor, data, at, self._path(descriptor))
            self._unsynced[descriptor] += chunk.size
            if self._unsynced[descriptor] >= SYNC_BYTES:
                self.sync()

    def _path(self, descriptor: int) -> Path:
        return next(path for path, opened in self._descriptors.items() if opened == descriptor)


def require_room(places: Mapping[Path, FileRecord], folder: Path, *, spare: int) -> None:
    """Raises `OutOfDisk` where the disk of `folder` has no room for what places lack, and `spare` bytes more."""
    there = sum(_held(path) for path in places if path.is_file())
    needed = sum(record.size for record in places.values()) - there + spare
    if shutil.disk_usage(folder).free < needed:
        raise durable.no_room(folder, needed)


def _held(path: Path) -> int:
    """Bytes of a file that are on the disk: holes are not, and a half-filled cluster is no more than it holds."""
    status = path.stat()
    return min(status.st_size, status.st_blocks * durable.SECTOR_BYTES)


def _write_at(descriptor: int, data: bytes, at: int, path: Path) -> None:
    rest = memoryview(data)
    try:
        while rest:
            written = os.pwrite(descriptor, rest, at)
            rest, at = rest[written:], at + written
    except OSError as error:
        durable.raise_if_full(error, path, len(data))
        raise


def _is(data: bytes, chunk: Chunk) -> bool:
    return len(data) == chunk.size and hashlib.sha256(data).digest() == chunk.digest


def _is_empty(descriptor: int) -> bool:
    """Whether a file has nothing but holes: it was made just now."""
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_blocks == 0


def _digest(descriptor: int, size: int) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(descriptor, size):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(descriptor: int, size: int) -> Iterator[bytes]:
    at = 0
    while at < size and (piece := os.pread(descriptor, min(_READ, size - at), at)):
        at += len(piece)
        yield piece
