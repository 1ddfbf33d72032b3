"""HTTP for whoever downloads: one request at a time, tried again where that may help, resumed where it was cut (Range).

Credentials go to the host that they are meant for and to no other. What an answer means is for the caller to say.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import IO, Any, TypeVar

import edgeai
from edgeai.errors import SourceError

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30.0  # without a byte
TRIES = 5  # in a row without one new byte
LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # worth another try
PARTIAL = 206
LARGEST_DOCUMENT = 32 << 20  # bytes of a JSON answer
ADVICE = "check the network, and the proxies of the environment, and run it again: it goes on where it stopped"

T = TypeVar("T")
Sleep = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for. `headers` may hold credentials: they go to the host of `url` and to no other.

    `cafile` is whose certificates are trusted, in PEM; without it the system's authorities are.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    cafile: str | None = None


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


class Patience:
    """Counts tries that brought nothing, and waits longer after each."""

    def __init__(self, host: str, advice: str = ADVICE, sleep: Sleep = time.sleep) -> None:
        self._host, self._advice, self._sleep = host, advice, sleep
        self._failed = 0

    def refresh(self) -> None:
        """Something came: the count begins anew."""
        self._failed = 0

    def wait(self, error: Interrupted) -> None:
        """Before the next try. Raises `SourceError` after `TRIES` of them in a row."""
        self._failed += 1
        if self._failed >= TRIES:
            raise SourceError(f"{self._host}: {error}, {TRIES} times in a row", self._advice) from error
        wait = 0.5 * 2**self._failed if error.wait is None else error.wait
        self._sleep(min(wait, LONGEST_WAIT))


def with_retries(
    attempt: Callable[[], T],
    host: str,
    *,
    advice: str = ADVICE,
    sleep: Sleep = time.sleep,
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Call `attempt` until it is not `Interrupted`, at most `TRIES` times between which `progress` does not grow."""
    patience, most = Patience(host, advice, sleep), progress()
    while True:
        try:
            return attempt()
        except Interrupted as error:
            now = progress()
            if now > most:  # a download that has to start over does not count as going on
                most = now
                patience.refresh()
            patience.wait(error)


def get_json(request: Request, *, advice: str = ADVICE, sleep: Sleep = time.sleep) -> Any:
    """A JSON document. Raises `ServerRefusal`, or `SourceError` for a server that is not reached or makes no sense."""

    def get() -> bytes:
        with open_url(request) as response:
            return read(response, LARGEST_DOCUMENT)

    body = with_retries(get, host_of(request.url), advice=advice, sleep=sleep)
    try:
        return json.loads(body)
    except ValueError as error:
        raise SourceError(
            f"{host_of(request.url)} answered with something that is not JSON", "check the endpoint"
        ) from error


def open_from(request: Request, start: int, stop: int | None = None) -> tuple[Any, int]:
    """Ask for the bytes of a resource from `start` up to `stop`; returns the response and where it really begins.

    Servers may ignore a range and send everything. Raises as `open_url` does.
    """
    wanted = start or stop is not None
    span = f"bytes={start}-{'' if stop is None else stop - 1}"
    response = open_url(replace(request, headers=dict(request.headers) | ({"Range": span} if wanted else {})))
    given = str(response.headers.get("Content-Range", ""))
    continues = response.status == PARTIAL and given.startswith(f"bytes {start}-")
    return response, start if continues else 0


class RangeReader:
    """Reads spans of one resource, over as many connections as that takes."""

    def __init__(self, request: Request, *, sleep: Sleep = time.sleep) -> None:
        self._request = request
        self._patience = Patience(host_of(request.url), sleep=sleep)
        self._response: Any = None
        self._at = 0  # in the resource, of the response's next byte
        self._stop: int | None = None  # of the response; None: it goes on to the end
        self.received = 0  # bytes, passed over ones too

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, in pieces. Raises `ServerRefusal`, `SourceError`."""
        at = start
        while at < stop:
            try:
                for piece in self._pieces(at, stop):
                    at += len(piece)
                    self._patience.refresh()
                    yield piece
            except Interrupted as error:
                self.close()
                self._patience.wait(error)

    def close(self) -> None:
        """Hang up."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _pieces(self, at: int, stop: int) -> Iterator[bytes]:
        """What one connection brings. Raises `Interrupted` when it is less."""
        if self._response is None or not self._at <= at or (self._stop is not None and self._stop < stop):
            self.close()
            self._response, self._at = open_from(self._request, at, stop)
            self._stop = stop if self._response.status == PARTIAL else None
        while self._at < stop:
            piece = read(self._response, min(CHUNK, (stop if self._at >= at else at) - self._at))
            if not piece:
                raise Interrupted(f"the connection was cut at byte {self._at}")
            self._at += len(piece)
            self.received += len(piece)
            if self._at > at:
                yield piece


def read(response: Any, size: int) -> bytes:
    """At most `size` bytes. Raises `Interrupted`."""
    try:
        return bytes(response.read(size))
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection was cut ({type(error).__name__})") from error


def host_of(url: str) -> str:
    """Host and port of an address."""
    return urllib.parse.urlsplit(url).netloc


def open_url(request: Request) -> Any:
    """Send one request, through the proxies of the environment.

    Raises `ServerRefusal`, `Interrupted`, and `SourceError` for an address that is none or a certificate that is not
    trusted.
    """
    if urllib.parse.urlsplit(request.url).scheme not in ("http", "https"):
        raise SourceError(f"{request.url!r} is not an http address", "check the endpoint")
    agent = {"User-Agent": f"edgeai/{edgeai.__version__}", "Accept-Encoding": "identity"}
    asked = urllib.request.Request(request.url, headers=agent | dict(request.headers))  # noqa: S310 (checked above)
    try:
        return urllib.request.build_opener(_Redirects, *_trusting(request)).open(asked, timeout=TIMEOUT_SECONDS)
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


def _trusting(request: Request) -> list[urllib.request.BaseHandler]:
    if request.cafile is None:
        return []
    return [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=request.cafile))]


def _retry_after(headers: Message) -> float | None:
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdecimal() else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to a content network, without the credentials that are meant for the first host."""

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
