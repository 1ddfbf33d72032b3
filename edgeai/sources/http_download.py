"""Downloads over HTTP that survive cut connections: resumed where they stopped, checked by digest, renamed when whole.

A download grows in a file of its own. A connection that is cut, a server that is busy: the next try asks for the rest
(RFC 9110, Range). The file gets its name only when its size and digest are the ones that were promised, so whatever
carries the name is whole.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeai import http_client
from edgeai.errors import SourceError
from edgeai.http_client import CHUNK, Interrupted, Request, ServerRefusal, Sleep, host_of, open_from, with_retries
from edgeai.package.durable import publish_file, raise_if_full

UNSATISFIABLE = 416
DAMAGED = "the file was changed on the way or on the server; nothing of it was used. Try again, or another mirror"
ADVICE = (
    "check the network, proxies and the mirror (HF_ENDPOINT, MODELSCOPE_ENDPOINT) and run it again:"
    " it goes on where it stopped"
)

Report = Callable[[int], object]  # told the bytes of the file that are there


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its repository lists it."""

    name: str  # path inside the repository
    size: int  # bytes
    sha256: str | None = None
    git_sha1: str | None = None  # of "blob <size>\\0" and the content, which is how git names small files

    def check(self, digests: Digests) -> None:
        """Raises `SourceError` that names both digests where they differ."""
        for kind, expected, actual in (
            ("sha256", self.sha256, digests.sha256),
            ("git sha1", self.git_sha1, digests.git_sha1),
        ):
            if expected is not None and expected != actual:
                message = f"{self.name} has the wrong digest: expected {kind} {expected}, got {actual}"
                raise SourceError(message, DAMAGED)


@dataclass(frozen=True, slots=True)
class Digests:
    """Both names of a file's content."""

    sha256: str
    git_sha1: str


def download(
    request: Request, file: RemoteFile, target: Path, part: Path, report: Report, *, sleep: Sleep = time.sleep
) -> Digests:
    """Fetch `file` to `target` by way of `part`, which keeps what came when this fails.

    Raises `ServerRefusal` as it came, `SourceError` for a server that cannot be reached or sends other bytes, and
    `OutOfDisk`.
    """
    resumed = part.exists() and part.stat().st_size > 0
    try:
        _until_whole(request, file, part, report, sleep)
        digests = digests_of(part)
        if resumed and not _matches(file, digests):  # the old beginning may be what is wrong: once from the start
            part.unlink()
            _until_whole(request, file, part, report, sleep)
            digests = digests_of(part)
        if not _matches(file, digests):
            part.unlink()
        file.check(digests)
        target.parent.mkdir(parents=True, exist_ok=True)
        publish_file(part, target)
    except OSError as error:
        raise_if_full(error, part, file.size)
        raise SourceError(f"cannot write {target}: {error.strerror}", "choose another cache folder") from error
    return digests


def digests_of(path: Path) -> Digests:
    """Both digests of a file, in one reading."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            git.update(chunk)
    return Digests(sha256.hexdigest(), git.hexdigest())


def _matches(file: RemoteFile, digests: Digests) -> bool:
    return file.sha256 in (None, digests.sha256) and file.git_sha1 in (None, digests.git_sha1)


def _until_whole(request: Request, file: RemoteFile, part: Path, report: Report, sleep: Sleep) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with_retries(
        lambda: _append(request, file, part, report),
        host_of(request.url),
        advice=ADVICE,
        sleep=sleep,
        progress=lambda: part.stat().st_size,
    )


def _append(request: Request, file: RemoteFile, part: Path, report: Report) -> None:
    """Bring `part` to the size of `file`. Raises `Interrupted` when it is still shorter afterwards."""
    have = part.stat().st_size
    report(have)
    if have == file.size:
        return
    if have > file.size:  # of another file, or damaged
        part.write_bytes(b"")
        have = 0
    try:
        response, start = open_from(request, have)
    except ServerRefusal as refusal:
        if have and refusal.status == UNSATISFIABLE:
            part.write_bytes(b"")
            raise Interrupted("the server has less of the file than is here") from refusal
        raise
    with response, part.open("ab" if start else "wb") as out:
        have = _copy(response, out, start, file.size, report)
    if have < file.size:
        raise Interrupted(f"the connection was cut after {have} of {file.size} bytes of {file.name}")


def _copy(response: Any, out: IO[bytes], have: int, size: int, report: Report) -> int:
    """Append what comes, at most one byte more than `size`; returns how long the file then is."""
    while chunk := http_client.read(response, min(CHUNK, size - have + 1)):
        have += len(chunk)
        if have > size:
            raise SourceError(f"the server sent more than the {size} bytes it promised", DAMAGED)
        out.write(chunk)
        report(have)
    return have
