"""Which addresses this machine has on its networks, and when they change."""

from __future__ import annotations

import ipaddress
import os
import selectors
import socket
from types import TracebackType
from typing import Self

import psutil

# Groups of rtnetlink(7) that tell of addresses that come and go; Python's socket module has no names for them.
_IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x10, 0x100
_BURST = 1 << 16  # bytes; what is told at once is read at once


def network_addresses() -> tuple[str, ...]:
    """Addresses that others on the network can reach: not this machine's own, nor those of one link only."""
    entries = [entry for interface in psutil.net_if_addrs().values() for entry in interface]
    inet = [entry.address for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
    return tuple(sorted(address for address in inet if _reachable(address)))


def _reachable(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def is_wildcard(host: str) -> bool:
    """Whether listening on `host` means listening on every address."""
    return host in ("0.0.0.0", "::", "")  # noqa: S104


class AddressWatch:
    """Wakes whoever waits when an address comes or goes, or when it is told to stop. Costs nothing in between."""

    def __init__(self) -> None:
        self._told, self._tell = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._told, selectors.EVENT_READ)
        self._changes = _netlink()
        if self._changes is not None:
            self._selector.register(self._changes, selectors.EVENT_READ)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a change, at most `seconds`. False once it was stopped."""
        ready = [key.fd for key, _ in self._selector.select(seconds)]
        if self._changes is not None and self._changes.fileno() in ready:
            self._changes.recv(_BURST)
        return self._told not in ready

    def stop(self) -> None:
        """End all waiting, now and later; any thread may call it."""
        os.write(self._tell, b".")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        os.close(self._told)
        os.close(self._tell)
        if self._changes is not None:
            self._changes.close()


def _netlink() -> socket.socket | None:
    """A socket that the kernel tells of addresses; None where there is no such thing."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    made = socket.socket(family, socket.SOCK_RAW, 0)  # NETLINK_ROUTE
    made.bind((0, _IPV4_ADDRESSES | _IPV6_ADDRESSES))
    return made
