"""Levels of restraint: up at once, down one by one after some calm, and limits that only shrink. No tensors."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.device.pressure import Reading
from edgeai.engine.governor import CALM_SECONDS, FASTEST, INTERVAL, LEAST_REST, LEVELS, Governor, Limits

RESERVE = 800
NORMAL = Limits(rows=8, chunk=256, prompt=4000, kv_bytes=10_000, alone_bytes=10_000, cache_bytes=10_000)


@dataclass
class Machine:
    """A gauge and a clock to be set by hand."""

    left: int = 10 * RESERVE
    stalled: float = 0.0
    kills: int = 5  # from before
    now: float = 100.0
    pressure: None = None
    limited: bool = False

    def read(self) -> Reading:
        return Reading(self.left, self.stalled, self.kills)

    def available(self) -> int:
        return self.left

    def clock(self) -> float:
        return self.now


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def governor(machine: Machine) -> Governor:
    return Governor(machine, RESERVE, clock=machine.clock)


def after(machine: Machine, governor: Governor, seconds: float) -> int:
    """The level after readings at every interval for some seconds."""
    for _ in range(round(seconds / INTERVAL)):
        machine.now += INTERVAL
        governor.observe()
    return governor.level


@pytest.mark.parametrize(
    ("available", "level"), [(400, 0), (399, 1), (300, 1), (299, 2), (200, 2), (199, 3), (100, 3), (99, 4), (0, 4)]
)
def test_levels_rise_at_once_to_where_the_memory_belongs(
    machine: Machine, governor: Governor, available: int, level: int
) -> None:
    machine.left = available
    assert governor.observe() == (level > 0)
    assert governor.level == level


def test_levels_fall_one_by_one_after_calm_seconds(machine: Machine, governor: Governor) -> None:
    machine.left = 0
    governor.observe()
    machine.left = 10 * RESERVE
    for level in (3, 2, 1, 0):
        assert after(machine, governor, CALM_SECONDS - 2 * INTERVAL) == level + 1
        assert after(machine, governor, 3 * INTERVAL) == level
    assert after(machine, governor, 10) == 0


def test_a_level_stays_while_memory_is_between_its_bounds(machine: Machine, governor: Governor) -> None:
    machine.left = 250
    assert after(machine, governor, 1) == 2
    machine.left = 499  # level 2 needs 3 + 2 eighths to end
    assert after(machine, governor, 20) == 2
    machine.left = 500
    assert after(machine, governor, 4) == 1
    machine.left = 599
    assert after(machine, governor, 20) == 1
    machine.left = 600
    assert after(machine, governor, 4) == 0


def test_readings_have_an_interval(machine: Machine, governor: Governor) -> None:
    assert governor.due()
    governor.observe()
    assert not governor.due()
    machine.now += INTERVAL
    assert governor.due()


def test_lasting_stalls_add_levels_where_memory_is_short_but_refuse_nobody(
    machine: Machine, governor: Governor
) -> None:
    machine.left, machine.stalled = RESERVE, 0.6
    assert after(machine, governor, 4 * INTERVAL) == 0  # a moment is no trouble
    assert after(machine, governor, 60) == 3
    machine.stalled = 0.0
    assert after(machine, governor, 60) == 0


def test_stalls_with_plenty_left_are_somebody_else_s(machine: Machine, governor: Governor) -> None:
    machine.stalled = 1.0
    assert after(machine, governor, 60) == 0
    machine.left = 0
    governor.observe()
    machine.left = 2 * RESERVE
    assert after(machine, governor, 60) == 0


def test_a_kill_in_the_control_group_is_a_warning(machine: Machine, governor: Governor) -> None:
    assert after(machine, governor, 1) == 0  # those from before do not count
    machine.kills += 1
    governor.observe()
    assert (governor.level, governor.kills) == (3, 1)
    assert after(machine, governor, 60) == 0


def test_growth_ends_before_it_would_be_pressure_itself(machine: Machine, governor: Governor) -> None:
    """A KV cache that grows as far as it may leaves more free than the first level asks for."""
    machine.left = 1000
    governor.observe()
    limits = governor.limits(NORMAL, committed=2000)
    assert limits.kv_bytes == 2000 + 1000 - 500
    machine.left = 1000 - (limits.kv_bytes - 2000)
    governor.observe()
    assert governor.level == 0


def test_the_less_is_left_the_sooner_it_is_looked_at_again(machine: Machine, governor: Governor) -> None:
    def rest(available: int) -> float:
        machine.left = available
        governor.observe()
        return governor.rest()

    assert rest(0) == rest(RESERVE) == LEAST_REST
    assert rest(RESERVE // 2 + int(FASTEST)) == 1.0
    assert rest(RESERVE // 2 + 3 * int(FASTEST)) == 3.0


@pytest.mark.parametrize(("left", "spare"), [(2 * RESERVE, 1100), (500, 0), (499, -1), (0, -500)])
def test_what_may_be_taken_is_what_growth_does_not_leave_free(
    machine: Machine, governor: Governor, left: int, spare: int
) -> None:
    machine.left = left
    assert governor.spare() == spare


def test_levels_take_away_step_by_step(machine: Machine, governor: Governor) -> None:
    seen = []
    for available in (10_000, 350, 250, 150, 50):
        machine.left = available
        governor.observe()
        seen.append(governor.limits(NORMAL, committed=3000))
    assert [limits.rows for limits in seen] == [8, 8, 4, 2, 1]
    assert [limits.chunk for limits in seen] == [256, 256, 256, 64, 64]
    assert [limits.prompt for limits in seen] == [4000, 4000, 4000, 1000, 1000]
    assert [limits.caching for limits in seen] == [True, False, False, False, False]
    assert [limits.cache_bytes for limits in seen] == [10_000, 10_000, 0, 0, 0]
    assert [limits.kv_bytes for limits in seen] == [10_000, 2750, 2650, 2550, 2450]
    assert [limits.alone_bytes for limits in seen] == [10_000, 3250, 3150, 3050, 2950]


@given(
    readings=st.lists(st.tuples(st.integers(0, 3 * RESERVE), st.floats(0, 1), st.integers(0, 3)), max_size=60),
    committed=st.integers(0, 10_000),
)
def test_limits_never_exceed_the_normal_ones_and_calm_always_returns(
    readings: list[tuple[int, float, int]], committed: int
) -> None:
    machine = Machine()
    governor = Governor(machine, RESERVE, clock=machine.clock)
    for available, stalled, killed in readings:
        machine.left, machine.stalled = available, stalled
        machine.kills += killed
        machine.now += INTERVAL
        governor.observe()
        assert 0 <= governor.level < len(LEVELS)
        limits = governor.limits(NORMAL, committed)
        assert 1 <= limits.rows <= 8
        assert 0 <= limits.kv_bytes <= limits.alone_bytes <= NORMAL.alone_bytes
        assert limits.kv_bytes <= max(0, committed + available - RESERVE // 2)
    machine.left, machine.stalled = 20 * RESERVE, 0.0
    assert after(machine, governor, len(LEVELS) * (CALM_SECONDS + 1)) == 0
    assert governor.limits(NORMAL, committed) == NORMAL
