"""What systemd and a service tell each other: sd_notify(3), the watchdog, and sockets that are handed over."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_SOCKET = 3  # SD_LISTEN_FDS_START

log = logging.getLogger("edgeai.server")


def notify(state: str) -> None:
    """Tell systemd, if it started this process and wants to know: READY=1, STOPPING=1, STATUS=..."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall(state.encode())
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", state, error)


def say_status(name: str | None = None) -> None:
    """Tell systemd that the service answers, and as which host on the network."""
    notify(f"STATUS=serving as {name}.local" if name else "STATUS=serving")


@contextmanager
def told() -> Iterator[None]:
    """Tell systemd that the service is ready, and at the end of the block that it stops."""
    notify("READY=1\nSTATUS=serving")
    try:
        yield
    finally:
        notify("STOPPING=1")


def handed_over() -> list[socket.socket]:
    """The sockets on which systemd listens for this service; none where it does not."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # they are not for child processes
    given = [socket.socket(fileno=number) for number in range(FIRST_SOCKET, FIRST_SOCKET + count)]
    for each in given:
        each.set_inheritable(False)
    return given


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from this process, None where it does not watch it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 or None


async def feed_watchdog(alive: Callable[[], bool]) -> None:
    """Tell systemd for ever that the service is alive, as long as it is: else it is ended and started again."""
    seconds = watchdog_seconds()
    while seconds is not None:
        if alive():
            notify("WATCHDOG=1")
        else:
            log.error("an engine does not come back from its work: systemd will start the server again")
        await asyncio.sleep(seconds / 2)  # as sd_watchdog_enabled(3) recommends
