"""Looks at memory beside a run: only while it is under way, and each to its end."""

from __future__ import annotations

import threading
import time

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
