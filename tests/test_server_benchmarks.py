"""What the benchmarks of servers stand on: processes are measured as they are, and both ends of a chat are real."""

from __future__ import annotations

import math
import signal
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
    assert all(reply.text and 0 < reply.tokens <= 6 and reply.prompt_tokens > 6 for reply in replies)
    assert all(server.started < reply.first_token <= reply.last_token for reply in replies)
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    from servers import edgeai_server

    with pytest.raises(SystemExit, match="no package at"), edgeai_server(tmp_path / "missing"):
        pass


def test_greedy_answers_part_at_a_near_tie_or_not() -> None:
    from greedy_answers import Answer, equal, same, tie

    def answer(*tokens: str) -> Answer:
        likely = [{token: -0.5, "near": -0.9, "far": -3.0} for token in tokens]
        return Answer(200, None, tokens, (-0.5,) * len(tokens), tuple(likely))

    one = answer("a", "b", "c")
    assert tie(one, answer("a", "b", "c")) is None
    assert tie(one, answer("a", "near", "x")) == pytest.approx(0.4)
    assert tie(one, answer("a", "far", "c")) == pytest.approx(2.5)
    assert tie(one, answer("a", "else", "c")) == tie(one, answer("a", "b")) == math.inf
    assert one.lead == pytest.approx(0.4)
    assert [equal(one, other) for other in (answer("a", "b", "c"), answer("a", "near"))] == [True, False]
    assert same(one, answer("a", "near"))
    assert not same(one, answer("a", "far"))
    assert not same(one, Answer(500))


def test_a_server_that_is_told_to_stop_and_one_that_is_killed(smollm_package: Package, tmp_path: Path) -> None:
    from greedy_answers import ask
    from servers import Server, edgeai_command

    command = edgeai_command(smollm_package.path, "--context", "512", "--kv-disk", "0", "--check", "never")
    environment = {"EDGEAI_HOME": str(tmp_path)}
    with Server(command, tmp_path / "log", environment=environment).ready() as server:
        first = ask(server.base_url, "one two three four five six", max_tokens=3, alternatives=2)
        assert ask(server.base_url, "one two " * 400, max_tokens=3, alternatives=2).status == 400
        server.stop()
        assert server.process.returncode == -signal.SIGTERM
    with Server(command, tmp_path / "log", environment=environment).ready() as server:
        second = ask(server.base_url, "one two three four five six", max_tokens=3, alternatives=2)
    assert server.process.returncode == -signal.SIGKILL
    assert (first.status, first.tokens, len(first.tokens)) == (200, second.tokens, 3)
    assert server.said().count("is ready") == 2
