"""Where faults are tried: homes of their own, a disk of their own, golden answers, a record to be continued."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faults_questions import Golden, goldens, stream
from patience import PATIENCE
from servers import Server, edgeai_command

KV_BUDGET = 60_000_000  # bytes on disk: room for about 40 blocks of the default model, so that old ones must leave
LEDGER = "written.json"
GOLDENS = 10
TEMPORARY = ".edgeai-tmp-*"


@dataclass
class Record:
    """What was tried so far, in a file that survives this program."""

    path: Path
    tried: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)  # what showed that faults took effect
    failures: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Record:
        record = cls(path)
        if path.exists():
            document = json.loads(path.read_text())
            for name in ("tried", "survived", "seen"):
                getattr(record, name).update(document[name])
            record.failures = document["failures"]
        return record

    def count(self, fault: str) -> int:
        """How many faults of a kind were tried, its own kinds ("damaged file: longer") included."""
        return sum(tried for kind, tried in self.tried.items() if kind.split(": ")[0] == fault)

    def save(self) -> None:
        document = {"tried": self.tried, "survived": self.survived, "seen": self.seen, "failures": self.failures}
        self.path.write_text(json.dumps(document, indent=1))

    @contextlib.contextmanager
    def trial(self, *faults: str) -> Iterator[None]:
        """Faults tried together; they are survived if the block ends without RuntimeError."""
        try:
            yield
        except RuntimeError as error:
            self.failures.append(f"{' + '.join(faults)}: {error}")
        else:
            self.survived.update(faults)
        self.tried.update(faults)
        self.save()


class Lab:
    """A package to serve and a folder to ruin. `seconds`: no new trial begins after so long."""

    def __init__(self, package: Path, work: Path, record: Record, seconds: float) -> None:
        self.package, self.work, self.record = package, work, record
        self._deadline = time.monotonic() + seconds
        with self.server("reference", kv_disk=0) as server:
            self.goldens: list[Golden] = goldens(server.ready().base_url, GOLDENS)

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() > self._deadline

    def server(
        self, home: str, *, kv_disk: int = KV_BUDGET, package: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Server:
        """A server with a home of that name; what it says is kept under the same name."""
        options = ["--context", "1024", "--kv-budget", "256M", "--kv-disk", str(kv_disk), "--kv-writes", "100GiB"]
        environment = {"EDGEAI_HOME": str(self.work / home)} | dict(env or {})
        command = edgeai_command(package or self.package, *options)
        return Server(command, self.work / f"{home}.log", environment=environment)

    def log(self, home: str) -> str:
        path = self.work / f"{home}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def check(self, server: Server, *numbers: int) -> int:
        """Golden questions; returns how many tokens needed no computing. Raises RuntimeError for a wrong answer."""
        chosen = numbers or range(GOLDENS)
        return sum(self.goldens[number].check(server.base_url).cached for number in chosen)

    def check_budget(self, home: str, *, kv_disk: int = KV_BUDGET) -> None:
        """Raises RuntimeError when the stored blocks take more than they may."""
        size = sum(path.stat().st_size for path in kv_files(self.work / home))
        if size > kv_disk:
            raise RuntimeError(f"{size} bytes of blocks on a budget of {kv_disk}")


def kv_files(home: Path) -> list[Path]:
    return sorted((home / "kv").glob("*/*.kv"))


def temporaries(home: Path) -> list[Path]:
    return sorted((home / "kv").glob(f"*/{TEMPORARY}"))


@contextlib.contextmanager
def traffic(server: Server, seed: int, clients: int = 3) -> Iterator[None]:
    """Clients that stream, each under a prompt that nobody has asked before."""
    threads = [
        threading.Thread(target=stream, args=(server.base_url, seed * 100 + number)) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[bool]:
    """A filesystem of `size` bytes at `path`; False where this process may not mount one."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", path], check=True)


def remount(path: Path, mode: str) -> None:
    """Make a `small_disk` read-only ("ro") or writable again ("rw"); busy for as long as a file is being written."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if subprocess.run(["mount", "-o", f"remount,{mode}", path], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise OSError(f"{path} cannot be remounted {mode}")
