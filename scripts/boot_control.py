"""QEMU's own socket (https://www.qemu.org/docs/master/interop/qmp-spec.html): the network cable, and restarts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESS = "qmp"  # in the work folder
NETWORK_CARD = "net"  # QEMU's name of it


class Control:
    """A conversation with a running QEMU."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._received = connection, b""
        self._next(time.monotonic() + 60)  # its greeting
        self._ask("qmp_capabilities")

    def plug(self, *, cable: bool) -> None:
        """Plug the network cable in, or out. Raises OSError where QEMU refuses."""
        self._ask("set_link", name=NETWORK_CARD, up=cable)

    def await_resets(self, count: int, within: float) -> None:
        """Wait until the machine has been started again so often. Raises TimeoutError."""
        deadline = time.monotonic() + within
        while count:
            count -= self._next(deadline).get("event") == "RESET"

    def _ask(self, command: str, **arguments: object) -> None:
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        answer: dict[str, Any] = {}
        while not {"return", "error"} & set(answer):  # events come between
            answer = self._next(time.monotonic() + 60)
        if "error" in answer:
            raise OSError(f"QEMU on {command}: {answer['error']}")

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            if not (data := self._connection.recv(1 << 16)):
                raise ConnectionError("QEMU has ended")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def control(work: Path) -> Iterator[Control]:
    """Of the machine that runs in this work folder."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(work / ADDRESS))
        yield Control(connection)
