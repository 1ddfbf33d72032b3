"""Finds the servers on the local network, and asks each how it fares."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from zeroconf import ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from edgeai.discovery.announce import SERVICES

ANSWER_SECONDS = 5.0  # for a board that is busy, or on a bad link


@dataclass(frozen=True, slots=True)
class Board:
    """A server on the network. `state` is "ok", "busy" with requests waiting, or why it did not answer."""

    name: str
    url: str
    version: str
    state: str = ""
    models: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0


class _Names(ServiceListener):
    """Collects the names of services as they are heard of."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002 (the names are zeroconf's)
        self.found.add(name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        pass

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        self.found.discard(name)


def discover(seconds: float = 3.0, *, interfaces: Sequence[str] | None = None) -> list[Board]:
    """Servers that answer within `seconds`, by name; asked over `interfaces`, by default over all.

    Raises OSError where the network cannot be used.
    """
    zeroconf = Zeroconf(interfaces=list(interfaces)) if interfaces else Zeroconf()
    try:
        names = _Names()
        browser = ServiceBrowser(zeroconf, SERVICES[0], names)
        time.sleep(seconds)
        infos = [zeroconf.get_service_info(SERVICES[0], name) for name in sorted(names.found)]
        browser.cancel()
    finally:
        zeroconf.close()
    boards = [board_of(info) for info in infos if info is not None and info.parsed_addresses()]
    with ThreadPoolExecutor(max(1, len(boards))) as pool:
        return list(pool.map(ask, boards))


def board_of(info: ServiceInfo) -> Board:
    """What the announcement says."""
    said = {key.decode(): (value or b"").decode("utf-8", "replace") for key, value in info.properties.items()}
    address = next(iter(info.parsed_addresses()))
    host = f"[{address}]" if ":" in address else address
    scheme = "https" if said.get("tls") == "1" else "http"
    name = info.name.removesuffix(f".{info.type}")
    return Board(name, f"{scheme}://{host}:{info.port}", said.get("version", ""))


def ask(board: Board) -> Board:
    """The board with what its `/health` says."""
    try:
        health = _health(board.url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return replace(board, state=f"does not answer: {error or type(error).__name__}")
    waiting = int(health.get("waiting", 0))
    return replace(
        board,
        state="busy" if waiting else "ok",
        models=tuple(health.get("models", ())),
        running=int(health.get("running", 0)),
        waiting=waiting,
    )


def _health(url: str) -> dict[str, Any]:
    scheme, _, host = url.partition("://")
    connection: http.client.HTTPConnection
    if scheme == "https":
        # Boards sign their own certificates, and nothing secret is sent: whoever uses the API checks the certificate.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, timeout=ANSWER_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        said = json.load(answer)
        if not isinstance(said, dict):
            raise ValueError("its /health is no JSON object")
        return said
    finally:
        connection.close()
