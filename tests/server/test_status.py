"""`/status`: what it costs to ask often."""

from __future__ import annotations

from edgeai.device.profile import Memory
from edgeai.server.status import MEMORY_SECONDS, RecentMemory


def test_memory_is_read_once_in_a_second() -> None:
    readings = iter(range(10))
    now = [100.0]
    memory = RecentMemory(lambda: Memory(total=10, available=next(readings), limit=None), lambda: now[0])
    assert [memory.look().available for _ in range(3)] == [0, 0, 0]
    now[0] += MEMORY_SECONDS / 2
    assert memory.look().available == 0
    now[0] += MEMORY_SECONDS / 2
    assert [memory.look().available for _ in range(3)] == [1, 1, 1]
