"""A wheel for another CPU is told before it kills the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.device import runtime_probe
from edgeai.errors import TrialFailed
from edgeai.tuning.cpu_key import read_cpu_key
from edgeai.tuning.runtime_check import ensure_runtime


def test_one_that_works_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_runtime(tmp_path)
    assert (tmp_path / "profiles" / "runtime").read_text().strip() == read_cpu_key().slug
    monkeypatch.setattr(runtime_probe, "PROBE", "import os; os.abort()")
    ensure_runtime(tmp_path)  # what is known is not tried again
    monkeypatch.setattr("edgeai.tuning.cpu_key.version", lambda _: "99.0")
    with pytest.raises(TrialFailed, match="SIGABRT"):
        ensure_runtime(tmp_path)


def test_an_illegal_instruction_is_told_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_probe, "PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    for _ in range(2):
        with pytest.raises(TrialFailed, match="SIGILL: this wheel is not made for this CPU"):
            ensure_runtime(tmp_path)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("in the way")
    ensure_runtime(tmp_path)


def test_it_can_be_asked_before_onnxruntime_is_there() -> None:
    code = "import sys, edgeai.tuning.runtime_check, edgeai.server.serve; print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
