"""Announces a server as `<name>.local`, with the services `_edgeai._tcp` and `_http._tcp`."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from zeroconf import AddressResolver, ServiceInfo, Zeroconf  # type: ignore[attr-defined] # missing in its __all__
from zeroconf import Error as ZeroconfError

from edgeai.discovery.addresses import AddressWatch, is_wildcard, network_addresses
from edgeai.discovery.names import LABEL, host_label

SERVICES = ("_edgeai._tcp.local.", "_http._tcp.local.")
SETTLE_SECONDS = 1.0  # addresses of one network come one after the other
NAMES = 50  # how many boards of one name are told apart

log = logging.getLogger("edgeai.discovery")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What others are told. `addresses` None: all that the machine has on its networks, whichever they come to be."""

    name: str
    port: int
    addresses: tuple[str, ...] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    suffix: str | None = None  # of this machine alone, for when another one has the name

    @classmethod
    def of(
        cls, name: str | None, host: str, port: int, properties: Mapping[str, str], suffix: str | None = None
    ) -> Announcement:
        """Of a server that listens on `host`; without a `name` the machine's own."""
        addresses = None if is_wildcard(host) else (host,)
        return cls(host_label(name or socket.gethostname()), port, addresses, properties, suffix)


def _nobody_is_told(name: str | None) -> None:
    pass


@contextmanager
def announcing(announcement: Announcement, tell: Callable[[str | None], None] = _nobody_is_told) -> Iterator[None]:
    """Announce until the block ends, then say goodbye. Addresses that come and go in between are followed.

    `tell` is called, in a thread, with each name that is announced; None without an address.
    """
    with AddressWatch() as watch:
        thread = threading.Thread(target=_follow, args=(announcement, watch, tell), name="edgeai-announce", daemon=True)
        thread.start()
        try:
            yield
        finally:
            watch.stop()
            thread.join()


def _follow(announcement: Announcement, watch: AddressWatch, tell: Callable[[str | None], None]) -> None:
    going_on = True
    while going_on:
        addresses = announcement.addresses or network_addresses()
        try:
            with announced(replace(announcement, addresses=addresses)) as name:
                tell(name)
                going_on = _changed(announcement, addresses, watch)
        except (OSError, ZeroconfError) as error:
            log.warning("this server cannot be announced on the network: %s", error or type(error).__name__)
            going_on = watch.wait()


def _changed(announcement: Announcement, addresses: tuple[str, ...], watch: AddressWatch) -> bool:
    """Wait until the addresses are others. False once the watch was stopped."""
    while watch.wait():
        if not watch.wait(SETTLE_SECONDS):
            return False
        if announcement.addresses is None and network_addresses() != addresses:
            return True
    return False


@contextmanager
def announced(announcement: Announcement) -> Iterator[str | None]:
    """Announce addresses as they are now, under a name that nobody else on the network has.

    Yields that name, None without an address. Raises OSError where the network cannot be used.
    """
    addresses = announcement.addresses or ()
    if not addresses:
        yield None
        return
    for address in addresses:
        _check_ours(address)
    zeroconf = Zeroconf(interfaces=list(addresses))
    try:
        name = free_name(zeroconf, announcement.name, addresses, announcement.suffix)
        for service in services(replace(announcement, name=name)):
            zeroconf.register_service(service, allow_name_change=True)
        log.info("announced as %s.local", name)
        yield name
    finally:
        zeroconf.unregister_all_services()
        zeroconf.close()


def _check_ours(address: str) -> None:
    """Raise OSError for an address that this machine does not have: zeroconf would leave sockets open."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as trial:
        trial.bind((address, 0))


def services(announcement: Announcement) -> list[ServiceInfo]:
    """The records of both services."""
    return [
        ServiceInfo(
            kind,
            f"{announcement.name}.{kind}",
            announcement.port,
            parsed_addresses=list(announcement.addresses or ()),
            properties={"path": "/", **announcement.properties},
            server=f"{announcement.name}.local.",
        )
        for kind in SERVICES
    ]


def free_name(zeroconf: Zeroconf, wished: str, own: Iterable[str], suffix: str | None = None) -> str:
    """`wished`, or with `suffix` or the first number behind it under which no other machine answers."""
    behind = [*([suffix] if suffix else []), *map(str, range(2, NAMES))]
    for name in [wished, *(f"{wished[: LABEL - 1 - len(each)]}-{each}" for each in behind)]:
        resolver = AddressResolver(f"{name}.local.")
        resolver.request(zeroconf, 1000)
        if set(resolver.parsed_addresses()) <= set(own):
            return name
    return wished
