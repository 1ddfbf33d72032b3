"""A runtime that does not load is seen, and survived."""

from __future__ import annotations

import pytest

from edgeai.device import runtime_probe
from edgeai.device.runtime_probe import probe_runtime


def test_one_that_loads_says_its_version() -> None:
    probe = probe_runtime()
    assert probe["works"]
    assert probe["says"].startswith("onnxruntime 1.")


def test_a_wheel_for_another_cpu_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_probe, "PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    probe = probe_runtime()
    assert not probe["works"]
    assert "SIGILL" in probe["says"]


def test_a_runtime_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_probe, "PROBE", "raise ImportError('no such library')")
    assert probe_runtime() == {"works": False, "says": "ImportError: no such library"}
