"""What keeps web pages from elsewhere away from the server, whose visitors' browsers are inside the network.

A page may resolve its own name to the server's address (DNS rebinding): then the browser sends that name as `Host`. Or
it may send requests straight to the server: then the browser adds the page's `Origin`. Both are looked at first.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers

from edgeai.discovery.names import host_label
from edgeai.errors import Forbidden
from edgeai.server.listening import is_loopback

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ORIGIN = "*"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_NUMBERED = re.compile(r"-\d{1,2}\.local$")
_ALLOWED_METHODS = "GET, POST, HEAD, DELETE"
_PREFLIGHT_SECONDS = "600"


class HostNames:
    """The names that a client may call this server by."""

    def __init__(self, listening: str, extra: Iterable[str] = (), board: str | None = None) -> None:
        """`listening` is the numeric address; where it is not a loopback one, all addresses and own names count.

        `board` is the name that it is announced by.
        """
        self._local_only = is_loopback(listening)
        self._names = LOOPBACK_NAMES | {name.lower() for name in extra}
        if not self._local_only:
            self._names |= own_names(board)

    def accepts(self, host: str) -> bool:
        """Whether a `Host` header names this server. An address cannot be rebound, so any will do on a network."""
        name = _name_of(host)
        if _NUMBERED.sub(".local", name) in self._names:  # boards of one name are told apart by numbers
            return True
        return name in self._names or (not self._local_only and _is_address(name))


def own_names(board: str | None = None) -> set[str]:
    """What this machine is called, plain, in full and in multicast DNS, where it may be announced as `board`."""
    full = socket.gethostname().lower()
    short = full.partition(".")[0]
    return {full, short, f"{short}.local", f"{host_label(board or full)}.local"}


def check_host(headers: Headers, names: HostNames) -> None:
    """Raises `Forbidden` for a name that is not this server's. Without a `Host` it was no browser."""
    host = headers.get("host")
    if host is not None and not names.accepts(host):
        raise Forbidden(f"this server is not called {_name_of(host)!r}", "its `hostname` setting accepts other names")


def check_origin(headers: Headers, allowed: frozenset[str]) -> str | None:
    """The origin of a page elsewhere that may ask; None for this server's own page, and for what is no page.

    Raises `Forbidden` for others.
    """
    origin = headers.get("origin")
    if origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower():
        return None
    if origin.lower() in allowed or ANY_ORIGIN in allowed:
        return origin
    raise Forbidden(f"pages of {origin!r} may not ask this server", "its `cors_origin` setting lets them")


def cors_headers(origin: str) -> dict[str, str]:
    """What lets a page of `origin` read the answer."""
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "retry-after, x-request-id",
        "vary": "origin",
    }


def preflight_headers(origin: str, headers: Headers) -> dict[str, str]:
    """What lets a page of `origin` send a request that it asks for ahead."""
    return {
        **cors_headers(origin),
        "access-control-allow-methods": _ALLOWED_METHODS,
        "access-control-allow-headers": headers.get("access-control-request-headers", ""),
        "access-control-max-age": _PREFLIGHT_SECONDS,
    }


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks on behalf of a page elsewhere what that page may send."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _name_of(host: str) -> str:
    """The name or address without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
