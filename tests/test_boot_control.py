"""What boot_image asks of QEMU: a server that speaks as QEMU does, with events between its answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))


@contextmanager
def qemu(folder: Path, answers: list[str]) -> Iterator[list[object]]:
    """What it was asked; each request is answered with the next of `answers`, which may be several lines."""
    asked: list[object] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "qmp"))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b'{"QMP": {"version": {}}}\r\n')
                decoder, text = json.JSONDecoder(), ""
                for answer in answers:
                    while not text.strip():
                        text = lines.read1().decode()
                    request, end = decoder.raw_decode(text)
                    text = text[end:]
                    asked.append(request)
                    connection.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


RESET = '{"event": "RESET", "data": {"guest": true}}\r\n'
DONE = '{"return": {}}\r\n'


def test_the_cable(tmp_path: Path) -> None:
    from boot_control import control

    with qemu(tmp_path, [DONE, RESET + DONE]) as asked, control(tmp_path) as machine:
        machine.plug(cable=False)
    assert asked[1] == {"execute": "set_link", "arguments": {"name": "net", "up": False}}


def test_a_refusal(tmp_path: Path) -> None:
    from boot_control import control

    refused = qemu(tmp_path, [DONE, '{"error": {"desc": "no such card"}}\n'])
    with refused, control(tmp_path) as machine, pytest.raises(OSError, match=r"set_link: .*no such card"):
        machine.plug(cable=True)


def test_resets_are_counted_and_nothing_else(tmp_path: Path) -> None:
    from boot_control import control

    events = DONE + RESET[:9]
    with qemu(tmp_path, [DONE, events, RESET[9:] + '{"event": "STOP"}\n' + RESET]), control(tmp_path) as machine:
        machine.plug(cable=False)
        with pytest.raises(TimeoutError):
            machine.await_resets(1, 0.2)
        machine._connection.sendall(b"{}")  # the server's cue to say the rest
        machine.await_resets(2, 10)


def test_a_machine_that_ends(tmp_path: Path) -> None:
    from boot_control import control

    with qemu(tmp_path, [DONE]), control(tmp_path) as machine, pytest.raises(ConnectionError, match="ended"):
        machine.await_resets(1, 10)
