"""Looks at memory beside a run: only while it is under way, and each to its end."""

from __future__ import annotations

import threading
import time

import pytest

from edgeai.engine import guard as guards
from edgeai.engine.guard import INTERVAL, RunGuard
from tests.fixtures.patience import PATIENCE, eventually


def test_a_look_that_has_begun_ends_before_the_block_does() -> None:
    begun, ended = threading.Event(), []

    def look() -> bool:
        begun.set()
        time.sleep(0.1)
        ended.append(time.monotonic())
        return False

    with RunGuard(look, lambda: None):
        assert begun.wait(PATIENCE)
    looks = len(ended)
    assert looks >= 1
    time.sleep(4 * INTERVAL)
    assert len(ended) == looks


def test_a_run_is_interrupted_until_it_ends() -> None:
    interrupts: list[None] = []
    guard = RunGuard(lambda: True, lambda: interrupts.append(None))
    for runs in (1, 2):
        with guard:
            assert eventually(lambda: len(interrupts) >= 2 * runs)  # noqa: B023 (called at once)
    seen = len(interrupts)
    time.sleep(4 * INTERVAL)
    assert len(interrupts) == seen


def test_a_look_that_fails_is_told_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guards, "FAILED_INTERVAL", INTERVAL)
    interrupts: list[None] = []
    looks = iter([OSError(24, "too many open files"), MemoryError()])

    def look() -> bool:
        failure = next(looks, None)
        if failure is not None:
            raise failure
        return True

    guard = RunGuard(look, lambda: interrupts.append(None))
    with guard:
        assert eventually(lambda: bool(interrupts))
    guard.close()
    assert caplog.text.count("memory could not be looked at") == 2
