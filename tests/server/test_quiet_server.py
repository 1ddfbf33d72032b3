"""The server at rest: it sleeps, and still stops at once when it is told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from edgeai.package.package import Package
from tests.fixtures import patience
from tests.fixtures.patience import PATIENCE, eventually
from tests.server.float_model import float_package
from tests.server.scripted import ScriptedModel
from tests.server.serving import serving

PROGRAM = """
import signal, sys, threading
from edgeai.config import ServerSettings
from edgeai.server.serve import serve
limits = dict(threads=2, kv_budget_bytes=1 << 27, kv_disk_bytes=1 << 27)
def take_signals():
    for number in sys.stdin:
        signal.pthread_kill(threading.get_ident(), int(number))
threading.Thread(target=take_signals, daemon=True).start()
serve(ServerSettings(port=0, model=sys.argv[1], check="never", **limits))
"""
SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


def switches(pid: int) -> int:
    """How often any thread of the process was put to sleep or interrupted so far."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(count) for status in statuses for count in SWITCHES.findall(status))


def sleeps(pid: int) -> bool:
    """Whether nothing of the process runs for two seconds."""
    before, used = switches(pid), time.clock_gettime((~pid << 3) | 2)
    time.sleep(2.0)
    return switches(pid) - before <= 2 and time.clock_gettime((~pid << 3) | 2) - used < 0.005


def answer(url: str, tokens: int) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens, "stream": True}
    with patience.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert "[DONE]" in "".join(response.iter_text())


def test_nothing_wakes_at_rest_but_a_signal_whichever_thread_it_comes_to(tmp_path: Path) -> None:
    package: Package = float_package(tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(package.path)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"EDGEAI_HOME": str(tmp_path)},
    )
    try:
        assert process.stderr is not None
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
        url = next((found for found in said if found), None)
        assert url is not None
        before = switches(process.pid)
        answer(url[0], tokens=8)
        assert switches(process.pid) > before + 8  # a token takes some: they are counted
        assert eventually(lambda: sleeps(process.pid))  # once what the answer left behind is done
        process.communicate(f"{int(signal.SIGTERM)}\n", timeout=PATIENCE)
        assert process.returncode == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_a_sleeping_server_stops_when_any_thread_says_so() -> None:
    with serving(ScriptedModel()) as served:
        time.sleep(0.2)
        served.server.should_exit = True
        assert served.eventually(lambda: served.model.closed)


def test_answers_are_dated_when_they_are_given() -> None:
    with serving(ScriptedModel()) as served:
        time.sleep(1.1)
        before = time.time()
        dated = parsedate_to_datetime(patience.get(f"{served.url}/health").headers["date"])
        assert int(before) <= dated.timestamp() <= time.time()
