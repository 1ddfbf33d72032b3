"""Runs a command under a hard memory limit that the kernel enforces, and says what came of it.

Ways, the first that works here: a scope of systemd, a control group of version 2, one of version 1 (as a child of this
process's own), and where no control group can be made, a limit of the data segment, which refuses memory instead of
killing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CGROUP = Path("/sys/fs/cgroup")
JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@dataclass
class LimitedBox:
    """Where limited processes run. `folder` is the control group's, once it is known."""

    limit: int
    way: str
    folder: Path | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, command: list[str], stderr: IO[bytes] | None = None) -> subprocess.Popen[str]:
        """Start a command in the box."""
        wrapped = {
            "systemd": ["systemd-run", "--scope", "--quiet", *_user(), *_properties(self.limit), *command],
            "cgroup2": ["sh", "-c", JOIN, str(self.folder), *command],
            "cgroup1": ["sh", "-c", JOIN, str(self.folder), *command],
            "none": command,
            "rlimit": ["sh", "-c", f'ulimit -d {self.limit // 1024} && exec "$@"', "sh", *command],
        }[self.way]
        process = subprocess.Popen(wrapped, stderr=stderr, stdout=subprocess.DEVNULL, text=True)
        self.started.append(process)
        if self.way == "systemd" and self.folder is None:
            self.folder = _folder_of(process.pid)
        return process

    @property
    def peak(self) -> int | None:
        """The most bytes that were charged to the group, file pages included; None where nobody counts."""
        return self._number("memory.peak", "memory.max_usage_in_bytes")

    @property
    def kills(self) -> int:
        """Processes that the kernel killed in the group for memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, AttributeError):
                lines = (self.folder / name).read_text().splitlines()  # type: ignore[operator]
                return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0

    def _number(self, *names: str) -> int | None:
        for name in names:
            with contextlib.suppress(OSError, TypeError):
                return int((self.folder / name).read_text())  # type: ignore[operator]
        return None

    def stop(self) -> None:
        """End what still runs and remove the group."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
            process.wait()
        if self.folder is not None and self.way != "systemd":
            _remove(self.folder)


@contextlib.contextmanager
def memory_limit(limit: int) -> Iterator[LimitedBox]:
    """A box of `limit` bytes, without swap."""
    box = _make(limit)
    try:
        yield box
    finally:
        box.stop()


def _make(limit: int) -> LimitedBox:
    if shutil.which("systemd-run") and Path("/run/systemd/system").exists():
        return LimitedBox(limit, "systemd")
    name = f"edgeai-check-{os.getpid()}-{time.monotonic_ns()}"
    for way, parent, file in (
        ("cgroup2", CGROUP, "memory.max"),
        ("cgroup1", CGROUP / "memory" / _own_memory_group(), "memory.limit_in_bytes"),
    ):
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        if not _set(folder / file, limit):
            _remove(folder)
            continue
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("0")
        return LimitedBox(limit, way, folder)
    return LimitedBox(limit, "rlimit")


def _set(file: Path, limit: int) -> bool:
    """Whether the limit could be written; a folder that is no control group does not have the file."""
    if not file.exists():
        return False
    try:
        file.write_text(str(limit))
    except OSError:
        return False
    return True


def _own_memory_group() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return path.strip("/")
    return ""


def _user() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user"]


def _properties(limit: int) -> list[str]:
    return ["-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]


def _folder_of(pid: int) -> Path | None:
    """The version 2 group of a process, once systemd has moved it to one of its own."""
    for _ in range(50):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            path = next(line[3:] for line in lines if line.startswith("0::"))
            if path.endswith(".scope") and "run-" in path:
                return CGROUP / path.strip("/")
        time.sleep(0.1)
    return None


def _remove(folder: Path) -> None:
    """A group's folder goes once its last process has; ending takes the kernel a moment."""
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
