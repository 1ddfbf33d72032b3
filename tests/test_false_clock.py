"""The clock that jumps under servers: of the time of day, and of nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.patience import PATIENCE

SCRIPTS = Path(__file__).parents[1] / "scripts"
DAY = 86_400
# Tells its clocks whenever it is asked; the file's time is the kernel's.
CHILD = """
import datetime, json, os, sys, threading, time
for line in sys.stdin:
    os.utime(sys.argv[1])
    threading.Event().wait(0.001)
    began = time.monotonic()
    time.sleep(0.01)
    told = {"time": time.time(), "now": datetime.datetime.now().timestamp(), "slept": time.monotonic() - began}
    print(json.dumps(told | {"monotonic": began, "file": os.stat(sys.argv[1]).st_mtime}), flush=True)
"""


def test_only_the_time_of_day_jumps_while_a_process_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from false_clock import MISSING, FalseClock

    if MISSING:
        pytest.skip(MISSING)
    clock = FalseClock(tmp_path)
    touched = tmp_path / "touched"
    touched.touch()
    command = [sys.executable, "-c", CHILD, touched]
    environment = os.environ | clock.environment
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        for days in (0, 400, -15_000, 0):
            clock.jump_to(days=days)
            child.stdin.write("now\n")
            child.stdin.flush()
            told = json.loads(child.stdout.readline())
            assert abs(told["time"] - days * DAY - time.time()) < PATIENCE
            assert abs(told["now"] - told["time"]) < PATIENCE
            assert abs(told["file"] - time.time()) < PATIENCE
            assert abs(told["monotonic"] - time.monotonic()) < PATIENCE
            assert 0.01 <= told["slept"] < PATIENCE
        child.stdin.close()
    assert child.returncode == 0
