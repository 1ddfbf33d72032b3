"""What a running process costs, from /proc: processor time, context switches, memory. Children that live count too."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """What was used up to some moment, or between two of them."""

    seconds: float  # of the clock
    cpu_seconds: float
    switches: int  # voluntary and not, of threads that live

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(
            self.seconds - earlier.seconds, self.cpu_seconds - earlier.cpu_seconds, self.switches - earlier.switches
        )


def cost_of(pid: int) -> Cost:
    """What the process and its living children have used so far."""
    pids = tree(pid)
    return Cost(time.perf_counter(), sum(map(cpu_seconds, pids)), sum(map(context_switches, pids)))


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, ended threads included, to the nanosecond (clock_getcpuclockid(3), Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


def context_switches(pid: int) -> int:
    """Of all living threads of a process."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            found += sum(map(int, _SWITCHES.findall(status.read_text())))
        except (FileNotFoundError, ProcessLookupError):  # the thread ended a moment ago
            continue
    return found


class PeakMemory:
    """Watches a process for as long as the context lasts; `mib` is the peak of its resident memory.

    That is the kernel's own high-water mark (VmHWM) of the process itself, or the sum over its children as well as it
    was sampled, if that was more. Mapped files, such as weights, count as far as they are resident.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._sampled, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        match = _PEAK.search(Path(f"/proc/{self._pid}/status").read_text())
        own = int(match[1]) << 10 if match else 0
        self.mib = max(own, self._sampled) / 2**20

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._sampled = max(self._sampled, sum(map(_resident, tree(self._pid))))


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
