"""Readings of memory, from files as boards have them and from this machine; waiting for the kernel's own word."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeai.device.control_group import MemoryGroup
from edgeai.device.heap import trim_heap
from edgeai.device.pressure import MemoryGauge, PressureWatch, available_bytes, pressure_file, stalled_seconds
from tests.device.test_control_group import write
from tests.fixtures.patience import PATIENCE

PSI = "some avg10={0}.00 avg60=0.00 avg300=0.00 total={1}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7"


def machine(root: Path, *, available_kib: int, stalled_us: int) -> Path:
    write(
        root,
        {
            "meminfo": f"MemTotal:  4000000 kB\nMemFree:  1 kB\nMemAvailable:  {available_kib} kB",
            "pressure/memory": PSI.format(0, stalled_us),
        },
    )
    return root


def group(folder: Path) -> MemoryGroup:
    return MemoryGroup(folder, 0, 0, 0, 0)


def test_a_reading_is_the_tighter_of_machine_and_group(tmp_path: Path) -> None:
    proc, box = machine(tmp_path / "proc", available_kib=1000, stalled_us=0), tmp_path / "box"
    write(box, {"memory.max": "900000", "memory.current": "800000", "memory.events": "oom_kill 4"})
    gauge = MemoryGauge(proc=proc, group=group(box))
    assert (gauge.read().available, gauge.read().kills) == (100000, 4)
    write(box, {"memory.current": "100"})
    machine(tmp_path / "proc", available_kib=500, stalled_us=0)
    assert gauge.read().available == 512000
    write(box, {"memory.max": "max"})  # the limit was lifted
    assert gauge.read().available == 512000


def test_what_cannot_be_read_for_once_is_as_it_was(tmp_path: Path) -> None:
    """A process may have no descriptors left for a moment; a group may be removed with its files."""
    proc, box = machine(tmp_path / "proc", available_kib=1000, stalled_us=0), tmp_path / "box"
    write(box, {"memory.max": "900000", "memory.current": "800000", "memory.pressure": PSI.format(0, 0)})
    gauge = MemoryGauge(proc=proc, group=group(box))
    assert gauge.read().available == 100000
    (proc / "meminfo").rename(proc / "away")
    (box / "memory.pressure").unlink()
    assert (gauge.read().available, gauge.read().stalled, gauge.available()) == (100000, 0, 100000)
    (proc / "away").rename(proc / "meminfo")
    write(box, {"memory.current": "700000"})
    assert gauge.read().available == 200000
    with pytest.raises(OSError, match="meminfo"):
        MemoryGauge(proc=tmp_path / "nothing", group=group(box)).read()


def test_stalls_are_a_share_of_the_time_since_the_last_reading(tmp_path: Path) -> None:
    proc, box = machine(tmp_path / "proc", available_kib=1000, stalled_us=5_000_000), tmp_path / "box"
    gauge = MemoryGauge(proc=proc, group=group(box))
    before = time.monotonic()
    assert gauge.read().stalled == 0
    time.sleep(0.2)
    machine(proc, available_kib=1000, stalled_us=5_100_000)
    stalled = gauge.read().stalled
    assert 0.1 / (time.monotonic() - before) <= stalled <= 0.5
    machine(proc, available_kib=1000, stalled_us=60_000_000)
    assert gauge.read().stalled == 1


def test_the_group_s_own_pressure_is_preferred(tmp_path: Path) -> None:
    proc, box = machine(tmp_path / "proc", available_kib=1, stalled_us=1), tmp_path / "box"
    assert pressure_file(group(box), proc) == proc / "pressure" / "memory"
    write(box, {"memory.pressure": PSI.format(3, 2_000_000)})
    chosen = pressure_file(group(box), proc)
    assert chosen == box / "memory.pressure"
    assert stalled_seconds(chosen) == 2.0
    assert pressure_file(None, tmp_path / "nothing") is None
    assert stalled_seconds(None) == 0


def test_a_proc_that_is_not_linux_s_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"meminfo": "MemTotal: 1 kB"})
    with pytest.raises(ValueError, match="what is available"):
        available_bytes(tmp_path / "meminfo")


def test_this_machine() -> None:
    reading = MemoryGauge().read()
    assert reading.available > 0
    assert 0 <= reading.stalled <= 1


def test_a_watch_without_a_file_is_not_armed(tmp_path: Path) -> None:
    for path in (None, tmp_path / "nothing"):
        watch = PressureWatch(lambda: None, path)
        assert not watch.armed
        watch.close()


def test_a_watch_hears_the_kernel_and_sleeps_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real PSI trigger, for stalls of the processor, which any two busy threads on one core have."""
    busy = Path("/proc/pressure/cpu")
    if not os.access(busy, os.W_OK):
        pytest.skip("the kernel has no PSI triggers for this user")
    heard = threading.Event()
    watch = PressureWatch(heard.set, busy)
    if not watch.armed:
        watch.close()
        pytest.skip("the kernel refuses PSI triggers to this user")
    spin = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\nwhile True: pass"
    children = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
    try:
        assert heard.wait(PATIENCE)
    finally:
        for child in children:
            child.kill()
            child.wait()
        watch.close()


def test_closing_a_watch_ends_its_thread() -> None:
    watch = PressureWatch(lambda: None, pressure_file(None))
    watch.close()
    watch.close()
    assert "edgeai-memory" not in {thread.name for thread in threading.enumerate()}


def test_trimming_gives_memory_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    kept = [bytes(60_000) for _ in range(2000)]  # below the size that has a mapping of its own
    keep_top = bytes(60_000)
    kept.clear()
    before = resident()
    if not trim_heap():
        pytest.skip("this C library gives memory back by itself")
    assert before - resident() > 50_000_000
    assert len(keep_top) == 60_000
