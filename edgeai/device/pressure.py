"""Whether memory is getting scarce: what is available now, how long tasks had to wait for memory, and who was killed.

`MemoryGauge` reads a few small files and is meant for a process that is busy anyway. `PressureWatch` sleeps in poll(2)
until the kernel reports a stall (PSI), so that an idle process costs nothing and still hears of it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeai.device.control_group import MemoryGroup, memory_group, read_memory_group

PROC = Path("/proc")
# Some task waited for memory for 150 ms within 2 s; other windows need privileges (kernel, accounting/psi.rst).
TRIGGER = b"some 150000 2000000\0"

log = logging.getLogger("edgeai.memory")


@dataclass(frozen=True, slots=True)
class Reading:
    """`available` bytes can be taken without a kill; `stalled` is the share of time, 0 to 1, since the last reading in
    which some task waited for memory; `kills` counts processes killed for memory in the control group.
    """

    available: int
    stalled: float
    kills: int


class MemoryGauge:
    """Reads the machine and the control group that had the least left when the gauge was made.

    Where a file cannot be read for once, for descriptors may be used up and groups removed, the last reading holds.
    Only the first has to succeed: raises OSError or ValueError where /proc is not Linux's.
    """

    def __init__(self, *, proc: Path = PROC, group: MemoryGroup | None = None) -> None:
        self._meminfo = proc / "meminfo"
        self._group = group or memory_group()
        self.limited = self._group is not None
        self.pressure = pressure_file(self._group, proc)  # what a `PressureWatch` can wait for
        self._waited, self._read_at = stalled_seconds(self.pressure), time.monotonic()
        self._last: tuple[int, MemoryGroup | None] | None = None

    def available(self) -> int:
        """`Reading.available` alone, for another thread than the one that reads."""
        return self._available()[0]

    def _available(self) -> tuple[int, MemoryGroup | None]:
        try:
            available = available_bytes(self._meminfo)
        except OSError as error:
            if self._last is None:
                raise
            log.debug("memory cannot be read now: %s", error)
            return self._last
        group = read_memory_group(self._group.folder) if self._group else None
        self._last = (available if group is None else min(available, group.left)), group
        return self._last

    def _stalled_seconds(self) -> float:
        try:
            return stalled_seconds(self.pressure)
        except OSError as error:
            log.debug("stalls cannot be read now: %s", error)
            return self._waited

    def read(self) -> Reading:
        """The state now; takes some tens of microseconds."""
        available, group = self._available()
        waited, now = self._stalled_seconds(), time.monotonic()
        stalled = (waited - self._waited) / max(1e-3, now - self._read_at)
        self._waited, self._read_at = waited, now
        return Reading(available, min(1.0, max(0.0, stalled)), group.kills if group else 0)


def pressure_file(group: MemoryGroup | None, proc: Path = PROC) -> Path | None:
    """Where the kernel writes about stalls: of the group where it can (version 2), else of the machine."""
    own = [group.folder / "memory.pressure"] if group else []
    return next((path for path in (*own, proc / "pressure" / "memory") if _readable(path)), None)


def available_bytes(meminfo: Path) -> int:
    """MemAvailable. Raises OSError or ValueError where /proc is not Linux's."""
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{meminfo} does not say what is available")


def stalled_seconds(pressure: Path | None) -> float:
    """For how long, ever, some task waited for memory; 0 where the kernel does not say."""
    if pressure is None:
        return 0.0
    for line in pressure.read_text(encoding="ascii").splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return 0.0


def _readable(path: Path) -> bool:
    """PSI may be compiled in but switched off: reading then fails."""
    try:
        return bool(path.read_text(encoding="ascii"))
    except OSError:
        return False


class PressureWatch:
    """Calls `notify`, in a thread of its own, each time the kernel reports that tasks wait for memory.

    `armed` is False where the kernel does not offer that to this user; nothing is called then.
    """

    def __init__(self, notify: Callable[[], None], pressure: Path | None) -> None:
        self._notify = notify
        self._trigger = _set_trigger(pressure)
        self.armed = self._trigger is not None
        if self._trigger is not None:
            self._wake_read, self._wake_write = os.pipe()
            self._thread = threading.Thread(target=self._run, args=(self._trigger,), name="edgeai-memory", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching; nothing is called any more once this returns. Closing again does nothing."""
        self._notify = _nobody  # whoever is watched for may leave memory now
        if self._trigger is None:
            return
        os.write(self._wake_write, b"x")
        self._thread.join()
        for descriptor in (self._wake_read, self._wake_write, self._trigger):
            os.close(descriptor)
        self._trigger = None

    def _run(self, trigger: int) -> None:
        waiting = select.poll()
        waiting.register(self._wake_read, select.POLLIN)
        waiting.register(trigger, select.POLLPRI)
        while True:
            events = dict(waiting.poll())
            if self._wake_read in events:
                return
            if events.get(trigger, 0) & select.POLLERR:  # the control group is gone
                return
            self._notify()


def _nobody() -> None:
    """Who is told once nobody watches any more."""


def _set_trigger(pressure: Path | None) -> int | None:
    """A descriptor that polls as POLLPRI under pressure; None where there is none to be had."""
    if pressure is None:
        return None
    try:
        descriptor = os.open(pressure, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        log.debug("no pressure trigger at %s: %s", pressure, error)
        return None
    try:
        os.write(descriptor, TRIGGER)
    except OSError as error:
        log.debug("no pressure trigger at %s: %s", pressure, error)
        os.close(descriptor)
        return None
    return descriptor
