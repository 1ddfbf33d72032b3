"""Reading bundles from a file or over HTTP: the head first, then the chunks that are wanted, each compared.

Memory holds the manifest and a chunk or two, whatever the bundle's size.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgeai.bundle.head import AGAIN, Head, exactly
from edgeai.bundle.manifest import Chunk
from edgeai.errors import BundleError, NotFound
from edgeai.http_client import RangeReader, Request, ServerRefusal, Sleep, host_of

GAP = 32 << 10  # bytes that are rather read in vain than asked around: a request costs about as much on a slow link
_PIECE = 1 << 20


class Origin(Protocol):
    """Where the bytes of a bundle come from."""

    @property
    def received(self) -> int:
        """Bytes so far."""

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, in pieces; fewer where there are no more."""

    def close(self) -> None: ...


class LocalOrigin:
    """A file."""

    def __init__(self, path: Path) -> None:
        """Raises `NotFound`."""
        self._received = 0
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise NotFound(f"cannot read {path}: {error.strerror}", param="bundle") from error

    @property
    def received(self) -> int:
        return self._received

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        self._file.seek(start)
        while start < stop and (piece := self._file.read(min(_PIECE, stop - start))):
            start += len(piece)
            self._received += len(piece)
            yield piece

    def close(self) -> None:
        self._file.close()


class HttpOrigin:
    """A resource of an HTTP server, with ranges or without."""

    def __init__(self, request: Request, sleep: Sleep) -> None:
        self._url = request.url
        self._reader = RangeReader(request, sleep=sleep)

    @property
    def received(self) -> int:
        return self._reader.received

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Raises `BundleError` for what the server refuses, `SourceError` where it is not reached."""
        try:
            yield from self._reader.stream(start, stop)
        except ServerRefusal as refusal:
            hints = {
                401: "give its key with --key",
                403: "the key has to be for bundles: `edgeai keys create NAME --scope bundles`",
                404: "look at the address",
                416: AGAIN,
            }
            raise BundleError(
                f"{host_of(self._url)} does not give {self._url}: {refusal}", hints.get(refusal.status, "")
            ) from refusal

    def close(self) -> None:
        self._reader.close()


@dataclass
class Bundle:
    """A bundle that was opened: its head was read, and nothing else."""

    head: Head
    origin: Origin

    @classmethod
    def open(cls, location: str | Request, *, sleep: Sleep = time.sleep) -> Self:
        """Open a file, or an http address, which may be given with headers as a request.

        Raises `NotFound`, `BundleError`, `SourceError`. Who signed it is for the caller to judge.
        """
        origin = _origin(location, sleep)
        try:
            return cls(Head.read(lambda start, size: _all_of(origin, start, size)), origin)
        except BaseException:
            origin.close()
            raise

    def chunks(self, wanted: Collection[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        """The content of chunks, in the bundle's order. Raises `BundleError` for one that is not what it should be."""
        offsets = self.head.offsets
        ordered = sorted(wanted, key=offsets.__getitem__)
        for run in _runs(ordered, offsets):
            yield from self._run(run, offsets)

    def close(self) -> None:
        self.origin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _run(self, run: Sequence[Chunk], offsets: Mapping[Chunk, int]) -> Iterator[tuple[Chunk, bytes]]:
        at, buffer = offsets[run[0]], bytearray()
        pieces = self.origin.stream(at, offsets[run[-1]] + run[-1].size)
        for chunk in run:
            skipped = offsets[chunk] - at
            while len(buffer) < skipped + chunk.size and (piece := next(pieces, b"")):
                buffer += piece
            data = exactly(bytes(buffer[skipped : skipped + chunk.size]), chunk.size)
            del buffer[: skipped + chunk.size]
            at = offsets[chunk] + chunk.size
            if hashlib.sha256(data).digest() != chunk.digest:
                raise BundleError("a chunk of the bundle is not what was signed: it is damaged, or another now", AGAIN)
            yield chunk, data


def _origin(location: str | Request, sleep: Sleep) -> Origin:
    if isinstance(location, str) and not re.match(r"https?://", location):
        return LocalOrigin(Path(location))
    return HttpOrigin(Request(location) if isinstance(location, str) else location, sleep)


def _runs(ordered: Sequence[Chunk], offsets: Mapping[Chunk, int]) -> Iterator[Sequence[Chunk]]:
    """Chunks that are worth one request."""
    breaks = [
        number
        for number, (one, other) in enumerate(pairwise(ordered), 1)
        if offsets[other] - offsets[one] - one.size > GAP
    ]
    for start, stop in pairwise([0, *breaks, len(ordered)]):
        if start < stop:
            yield ordered[start:stop]


def _all_of(origin: Origin, start: int, size: int) -> bytes:
    return exactly(b"".join(origin.stream(start, start + size)), size)
