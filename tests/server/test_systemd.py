"""What the server says to systemd, and the unit that starts it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeai.server.systemd import feed_watchdog, handed_over, notify, say_status, told, watchdog_seconds
from tests.fixtures.patience import PATIENCE

UNITS = Path(__file__).parents[2] / "images/overlay/usr/lib/systemd/system"


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgeai-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def test_ready_and_stopping(systemd: socket.socket) -> None:
    with told():
        assert systemd.recv(100) == b"READY=1\nSTATUS=serving"
    assert systemd.recv(100) == b"STOPPING=1"
    say_status("clinic")
    assert systemd.recv(100) == b"STATUS=serving as clinic.local"


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify("READY=1")
    assert "cannot be told READY=1" in caplog.text


def test_the_watchdog_is_fed_while_the_engine_is_alive(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    asked = []

    def alive() -> bool:
        asked.append(len(asked) != 1)
        return asked[-1]

    async def run() -> None:
        task = asyncio.create_task(feed_watchdog(alive))
        while len(asked) < 4:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(run())
    systemd.setblocking(False)
    told_times = 0
    while True:
        try:
            assert systemd.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            break
        told_times += 1
    assert told_times == sum(asked) == len(asked) - 1


def test_a_watchdog_for_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 60
    monkeypatch.delenv("WATCHDOG_USEC")
    assert watchdog_seconds() is None


TAKE = """
import os, sys
from edgeai.server.systemd import handed_over
os.environ["LISTEN_PID"] = str(os.getpid())
(taken,) = handed_over()
assert "LISTEN_FDS" not in os.environ and not taken.get_inheritable()
assert handed_over() == []
taken.accept()[0].sendall(b"taken")
"""


def test_a_socket_is_handed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def third() -> None:
            os.dup2(listener.fileno(), 3)

        child = subprocess.Popen(
            [sys.executable, "-c", TAKE], env=os.environ | {"LISTEN_FDS": "1"}, close_fds=False, preexec_fn=third
        )
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
            assert connection.recv(100) == b"taken"
        assert child.wait(PATIENCE) == 0


def test_sockets_for_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert handed_over() == []
    monkeypatch.setenv("LISTEN_PID", "1")
    assert handed_over() == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own judgement needs systemd")
def test_the_service_is_confined() -> None:
    """The figure of systemd for how much a service may do: 0 to 10, and less than 2.5 here."""
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(UNITS / "edgeai.service")]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr
    assert "Overall exposure level" in judged.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own judgement needs systemd")
@pytest.mark.parametrize("unit", ["edgeai.service", "edgeai.socket"])
def test_systemd_understands_the_units(unit: str, tmp_path: Path) -> None:
    for name in ("edgeai.service", "edgeai.socket"):
        text = (UNITS / name).read_text().replace("/usr/bin/edgeai", "/bin/true")
        (tmp_path / name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / unit], capture_output=True, text=True, check=False
    )
    mine = [line for line in checked.stderr.splitlines() if "edgeai" in line]
    assert (checked.returncode, mine) == (0, [])
