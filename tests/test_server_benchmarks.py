"""What the benchmarks of servers stand on: processes are measured as they are, and both ends of a chat are real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgeai.package.package import Package
from tests.fixtures.patience import eventually

SCRIPTS = Path(__file__).parents[1] / "scripts"
BUSY = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
started = time.process_time()
held = bytes(int(sys.argv[1])) and bytearray(b"x") * int(sys.argv[1])
while time.process_time() - started < float(sys.argv[2]):
    pass
time.sleep(0.01)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def busy(megabytes: int, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", BUSY, str(megabytes << 20), str(seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_cost_of_a_process() -> None:
    from process_cost import PeakMemory, cost_of

    with busy(64, 0.5) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        before = cost_of(process.pid)
        with PeakMemory(process.pid) as memory:
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"done\n"
        used = cost_of(process.pid) - before
        assert eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        at_rest = cost_of(process.pid)
        still = cost_of(process.pid) - at_rest
        process.stdin.close()
    assert 0.5 <= used.cpu_seconds < 0.7
    assert used.switches >= 1
    assert (still.cpu_seconds, still.switches) == (0, 0)
    assert 64 < memory.mib < 110


def test_a_server_is_started_asked_and_stopped(smollm_package: Package) -> None:
    from server_client import chats
    from servers import edgeai_server

    with edgeai_server(smollm_package.path, context=512) as server:
        replies = chats(server.base_url, ["Hello", "Good morning"], max_tokens=6)
        assert server.start_seconds > 0
    assert all(reply.text and 0 < reply.tokens <= 6 and reply.prompt_tokens > 6 for reply in replies)
    assert all(server.started + server.start_seconds < reply.first_token <= reply.last_token for reply in replies)
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    from servers import edgeai_server

    with pytest.raises(SystemExit, match="no package at"), edgeai_server(tmp_path / "missing"):
        pass
