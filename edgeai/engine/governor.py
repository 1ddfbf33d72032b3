"""From readings of memory to a level of restraint, and from a level to limits: integer arithmetic, no tensors.

    0  normal
    1  the prefix cache gives up what is missing, and keeps nothing new
    2  no prefix cache, half of the rows: the youngest sequences start again later
    3  a quarter of the rows, prompts and chunks of a quarter
    4  one row; new requests are refused, to be sent again later

At every level, normal included, the KV cache may only grow into memory that is really there. Levels rise at once, to
where the memory that is left belongs, and fall one at a time after some calm seconds. What was accepted is never cut
short: it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LEVELS = ("normal", "cache evicted", "fewer rows", "shorter prompts", "refusing")
REFUSING = len(LEVELS) - 1
EIGHTHS = (4, 3, 2, 1)  # of the reserve: with less than so much left, levels 1 to 4 begin
HYSTERESIS = 2  # eighths more than that have to be back before a level ends
KEEP, KEEP_SCARCE, KEEP_ALONE = 5, 6, 1  # eighths that growth leaves free: normally, at higher levels, of a lone row
STALLED, CALM = 0.25, 0.05  # share of time in which tasks waited for memory
STALL_RESERVES = 2  # stalls count where no more than so many reserves are left
MOST_STALL_LEVEL = 3  # stalls alone refuse nobody
WATCHFUL_RESERVES = 4  # with less left than so many reserves, memory is looked at within steps too
INTERVAL = 0.05  # seconds between readings while there is work
IDLE_INTERVAL = 0.5  # while there is none, but a level to come down from
LEAST_REST = 0.05  # while there is none and no level, but something to give back
FASTEST = 200e6  # bytes a second that a neighbour is expected to take at most while nobody looks
RISE_SECONDS = 1.0  # between levels that stalls add
CALM_SECONDS = 3.0  # before a level ends


class Reading(Protocol):
    """What `device.pressure.Reading` has."""

    @property
    def available(self) -> int: ...
    @property
    def stalled(self) -> float: ...
    @property
    def kills(self) -> int: ...


class Gauge(Protocol):
    """Where readings come from; `pressure` is the kernel's file to wait at for bad news, if there is one.

    `limited`: whether a control group has less than the machine. The kernel kills at its limit without a word before.
    """

    pressure: Path | None
    limited: bool

    def read(self) -> Reading: ...
    def available(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler may use: rows, tokens of a chunk and of a new prompt, bytes of the KV cache.

    `alone_bytes` is for a sequence that runs alone, so that there is always one that gets on. `caching`: whether the
    prefix cache takes new blocks; `releasing`: whether rows that have more than they may now have to give it back.
    """

    rows: int
    chunk: int
    prompt: int
    kv_bytes: int
    alone_bytes: int
    cache_bytes: int
    caching: bool = True
    releasing: bool = False


class Governor:
    """Keeps the level. `reserve` bytes are what the budget left free."""

    def __init__(self, gauge: Gauge, reserve: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.level = 0
        self.available: int | None = None  # bytes, as read last
        self.kills = 0  # by the kernel, of processes in this control group, since the start
        self.pressure, self.limited = gauge.pressure, gauge.limited
        self._gauge, self._reserve, self._clock = gauge, reserve, clock
        self._kills_before = gauge.read().kills
        self._stalled = 0.0  # as `Reading.stalled`, of about the last second
        self._read_at = self._next = self._calm_since = self._risen_at = clock()

    def due(self) -> bool:
        """Whether it is time for another reading."""
        return self._clock() >= self._next

    @property
    def watchful(self) -> bool:
        """Whether so little is left that it could be gone before a step ends."""
        return self.available is not None and self.available < WATCHFUL_RESERVES * self._reserve

    def scarcer(self) -> bool:
        """Whether memory has become so scarce since the last reading that a step should not go on; for any thread.

        Asks for a higher level each time, so that steps are not interrupted for ever.
        """
        level = max(self.level, 1)
        return level < REFUSING and self._gauge.available() < self._reserve * EIGHTHS[level] // 8

    def spare(self) -> int:
        """Bytes that may be taken as things are now; below zero: that should be given back. For any thread."""
        return self._gauge.available() - self._reserve * KEEP // 8

    def rest(self) -> float:
        """Seconds before which the first level will hardly begin while this process is at rest."""
        left = (self.available or 0) - self._reserve * EIGHTHS[0] // 8
        return max(LEAST_REST, left / FASTEST)

    def observe(self) -> bool:
        """Read, and set the level; True when it has changed."""
        now, before = self._clock(), self.level
        reading = self._gauge.read()
        self.available = reading.available
        self._stalled += (reading.stalled - self._stalled) * min(1.0, now - self._read_at)
        self._read_at, self._next = now, now + INTERVAL
        self._rise(reading, now)
        if not self._calm(reading):
            self._calm_since = now
        elif self.level and now - self._calm_since >= CALM_SECONDS:
            self.level -= 1
            self._calm_since = now
        return self.level != before

    def limits(self, normal: Limits, committed: int) -> Limits:
        """What the level leaves of `normal`, with `committed` bytes of the KV cache in memory already."""
        if self.available is None:
            return normal
        kept = KEEP if self.level == 0 else KEEP_SCARCE
        ceiling = committed + self.available - self._reserve * kept // 8
        parts = (1, 1, 2, 4, normal.rows)[self.level]
        shorter = 4 if self.level >= 3 else 1
        kv_bytes = min(normal.kv_bytes, max(0, ceiling))
        return Limits(
            rows=max(1, normal.rows // parts),
            chunk=max(1, normal.chunk // shorter),
            prompt=normal.prompt // shorter,
            kv_bytes=kv_bytes,
            alone_bytes=min(normal.alone_bytes, max(0, committed + self.available - self._reserve * KEEP_ALONE // 8)),
            cache_bytes=normal.cache_bytes if self.level < 2 else 0,
            caching=self.level == 0,
            releasing=self.level >= 2,
        )

    def _rise(self, reading: Reading, now: float) -> None:
        level = sum(reading.available < self._reserve * eighths // 8 for eighths in EIGHTHS)
        if reading.kills > self._kills_before + self.kills:
            self.kills = reading.kills - self._kills_before
            level = max(level, MOST_STALL_LEVEL)
        stalled = self._stalled > STALLED and self._own(reading)
        if stalled and self.level < MOST_STALL_LEVEL and now - self._risen_at >= RISE_SECONDS:
            level = max(level, self.level + 1)
        if level > self.level:
            self.level, self._risen_at = level, now

    def _calm(self, reading: Reading) -> bool:
        """Whether there is enough for the level below this one."""
        needed = EIGHTHS[max(0, self.level - 1)] + HYSTERESIS
        return reading.available >= self._reserve * needed // 8 and not (self._stalled > CALM and self._own(reading))

    def _own(self, reading: Reading) -> bool:
        """Whether stalls are this process's: with much memory left they are those of a neighbour with a limit."""
        return reading.available < STALL_RESERVES * self._reserve
