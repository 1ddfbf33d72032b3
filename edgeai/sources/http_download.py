"""Downloads over HTTP that survive cut connections: resumed where they stopped, checked by digest, renamed when whole.

A download grows in a file of its own. A connection that is cut, a server that is busy: the next try asks for the rest
(RFC 9110, Range). The file gets its name only when its size and digest are the ones that were promised, so whatever
carries the name is whole.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any, TypeVar

import edgeai
from edgeai.errors import SourceError
from edgeai.package.durable import publish_file, raise_if_full

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30.0  # without a byte
TRIES = 5  # in a row without one new byte
LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # worth another try
PARTIAL = 206
UNSATISFIABLE = 416
LARGEST_DOCUMENT = 32 << 20  # bytes of a JSON answer
DAMAGED = "the file was changed on the way or on the server; nothing of it was used. Try again, or another mirror"

T = TypeVar("T")
Sleep = Callable[[float], object]
Report = Callable[[int], object]  # told the bytes of the file that are there


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for. `headers` may hold credentials: they go to the host of `url` and to no other."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


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


class ServerRefusal(Exception):
    """An answer that another try would not change; whoever knows what was asked for explains it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status} {reason}".strip())
        self.status = status


class Interrupted(Exception):
    """A try that failed in a way the next one may not. `wait` is the seconds the server asked for."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


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


def get_json(request: Request, *, sleep: Sleep = time.sleep) -> Any:
    """A JSON document. Raises `ServerRefusal`, or `SourceError` for a server that is not reached or makes no sense."""

    def read() -> bytes:
        with _open(request) as response:
            return _read(response, LARGEST_DOCUMENT)

    body = with_retries(read, host_of(request.url), sleep=sleep)
    try:
        return json.loads(body)
    except ValueError as error:
        raise SourceError(
            f"{host_of(request.url)} answered with something that is not JSON", "check the endpoint"
        ) from error


def with_retries(
    attempt: Callable[[], T], host: str, *, sleep: Sleep = time.sleep, progress: Callable[[], int] = lambda: 0
) -> T:
    """Call `attempt` until it is not `Interrupted`, at most `TRIES` times between which `progress` does not grow."""
    failed, most = 0, progress()
    while True:
        try:
            return attempt()
        except Interrupted as error:
            now = progress()
            failed = 1 if now > most else failed + 1
            most = max(most, now)  # a download that has to start over does not count as going on
            if failed >= TRIES:
                raise SourceError(
                    f"{host}: {error}, {TRIES} times in a row",
                    "check the network, proxies and the mirror (HF_ENDPOINT, MODELSCOPE_ENDPOINT) and run it again:"
                    " it goes on where it stopped",
                ) from error
            wait = 0.5 * 2**failed if error.wait is None else error.wait
            sleep(min(wait, LONGEST_WAIT))


def host_of(url: str) -> str:
    """Host and port of an address."""
    return urllib.parse.urlsplit(url).netloc


def _matches(file: RemoteFile, digests: Digests) -> bool:
    return file.sha256 in (None, digests.sha256) and file.git_sha1 in (None, digests.git_sha1)


def _until_whole(request: Request, file: RemoteFile, part: Path, report: Report, sleep: Sleep) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with_retries(
        lambda: _append(request, file, part, report),
        host_of(request.url),
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
    headers = dict(request.headers) | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = _open(Request(request.url, headers))
    except ServerRefusal as refusal:
        if have and refusal.status == UNSATISFIABLE:
            part.write_bytes(b"")
            raise Interrupted("the server has less of the file than is here") from refusal
        raise
    with response:
        start = have if have and _continues(response, have) else 0
        with part.open("ab" if start else "wb") as out:
            have = _copy(response, out, start, file.size, report)
    if have < file.size:
        raise Interrupted(f"the connection was cut after {have} of {file.size} bytes of {file.name}")


def _copy(response: Any, out: IO[bytes], have: int, size: int, report: Report) -> int:
    """Append what comes, at most one byte more than `size`; returns how long the file then is."""
    while chunk := _read(response, min(CHUNK, size - have + 1)):
        have += len(chunk)
        if have > size:
            raise SourceError(f"the server sent more than the {size} bytes it promised", DAMAGED)
        out.write(chunk)
        report(have)
    return have


def _continues(response: Any, have: int) -> bool:
    """Whether the answer is the rest from `have` on. Servers may ignore a range and send everything."""
    given = str(response.headers.get("Content-Range", ""))
    return bool(response.status == PARTIAL and given.startswith(f"bytes {have}-"))


def _read(response: Any, size: int) -> bytes:
    try:
        return bytes(response.read(size))
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection was cut ({type(error).__name__})") from error


def _open(request: Request) -> Any:
    """Send one request, through the proxies of the environment. Raises `ServerRefusal` or `Interrupted`."""
    if urllib.parse.urlsplit(request.url).scheme not in ("http", "https"):
        raise SourceError(f"{request.url!r} is not an http address", "check the endpoint")
    agent = {"User-Agent": f"edgeai/{edgeai.__version__}", "Accept-Encoding": "identity"}
    asked = urllib.request.Request(request.url, headers=agent | dict(request.headers))  # noqa: S310 (checked above)
    try:
        return urllib.request.build_opener(_Redirects).open(asked, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in BUSY:
            raise Interrupted(f"HTTP {error.code} {error.reason}", _retry_after(error.headers)) from error
        raise ServerRefusal(error.code, str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise SourceError(
                f"{host_of(request.url)}: {reason}", "check the clock; SSL_CERT_FILE names other authorities"
            ) from error
        raise Interrupted(f"cannot be reached ({reason})") from error


def _retry_after(headers: Message) -> float | None:
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdecimal() else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to a content network, without the credentials that are meant for the hub."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        if redirected is not None and _origin(newurl) != _origin(req.full_url):
            for name in ("Authorization", "Cookie"):
                redirected.headers.pop(name, None)
        return redirected


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc
