"""How many connections there are, together and from one address, counted as the system hands them over.

That is before TLS is spoken on them, which alone may take a client as long as it likes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from typing import Any

from edgeai.config import ServerSettings

NETWORK_BITS = 64  # of an IPv6 address: what one household has all of


class Admission:
    """Counts connections, and turns away those that are too many."""

    def __init__(self, settings: ServerSettings) -> None:
        self.turned_away = 0
        self._counts: Counter[str] = Counter()
        self.follow(settings)

    def follow(self, settings: ServerSettings) -> None:
        """Take over settings that were read again."""
        self._together, self._each = settings.max_connections, settings.connections_per_address
        self.stall_milliseconds = int(settings.stall_seconds * 1000)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return self._counts.total()

    def enter(self, address: str) -> str | None:
        """Count a connection, under a name to `leave` by; None if there are too many.

        Of this machine's own there may be any number within the sum: a proxy's clients all come from there.
        """
        group = _group(address)
        own = ipaddress.ip_address(group).is_loopback
        if self.open >= self._together or (self._counts[group] >= self._each and not own):
            self.turned_away += 1
            return None
        self._counts[group] += 1
        return group

    def leave(self, group: str) -> None:
        """A connection is over."""
        self._counts[group] -= 1
        if not self._counts[group]:
            del self._counts[group]


class CountedListener(socket.socket):
    """A listening socket that closes at once what is too many, as soon as it is told by whose count."""

    def __init__(self, listener: socket.socket) -> None:
        """Takes over `listener`."""
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self.admission: Admission | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises `ConnectionAbortedError` for one too many, as if its client had left."""
        accepted, address = super().accept()
        # asyncio does so for sockets of its own only. Without it the end of an answer waits until its client
        # has acknowledged the beginning, which systems put off by 40 ms.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.admission is None:
            return accepted, address
        # The system gives up a client that reads nothing for so long, or that is gone, whatever is left to be sent.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.admission.stall_milliseconds)
        group = self.admission.enter(address[0])
        if group is None:
            accepted.close()
            raise ConnectionAbortedError
        return _CountedConnection(accepted, self.admission, group), address


class _CountedConnection(socket.socket):
    """Says when it is closed."""

    def __init__(self, accepted: socket.socket, admission: Admission, group: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._admission: Admission | None = admission
        self._group = group

    def close(self) -> None:
        """Close it, once."""
        super().close()
        if self._admission is not None:
            self._admission.leave(self._group)
            self._admission = None


def _group(address: str) -> str:
    """The address, or of IPv6 the network that it is in."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, NETWORK_BITS), strict=False).network_address)
    return str(parsed)
