"""Keeping a thread on some processors, each time in a thread of its own, for a mask is never widened again."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeai.device.affinity import allowed_cpus, pin_thread

ALLOWED = sorted(allowed_cpus())


def pinned(cpus: Iterable[int]) -> frozenset[int]:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(pin_thread, cpus).result() == pool.submit(allowed_cpus).result()
        return pool.submit(allowed_cpus).result()


@pytest.mark.parametrize("cpu", ALLOWED)
def test_a_thread_stays_where_it_is_put(cpu: int) -> None:
    assert pinned([cpu]) == {cpu}
    assert allowed_cpus() == set(ALLOWED)  # others go where they went before


def test_processors_that_are_not_there_are_left_out() -> None:
    assert pinned([ALLOWED[-1], 100_000]) == {ALLOWED[-1]}
    assert pinned([100_000]) == set(ALLOWED)
    assert pinned([]) == set(ALLOWED)
