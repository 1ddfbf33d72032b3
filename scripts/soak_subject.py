"""The server that is soaked, and what is done to it: its keys, its small disk, its clock, a kill and a restart."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import false_clock
from false_clock import FalseClock
from faults_lab import small_disk
from faults_tried import fill
from servers import ROOT, Server, edgeai_command
from soak_clients import Target

DISK = 160 << 20  # bytes of the small disk
KV_DISK = 64 << 20  # of them for prompts
CONTEXT, ROWS = 5120, 8
OPTIONS = ["--context", str(CONTEXT), "--rows", str(ROWS), "--kv-budget", "1GiB"]
DESKS = 4  # keys that the clients share


class Subject:
    """`edgeai serve` with keys, in a home folder of its own, under a clock of its own. `start` first.

    `missing` says by name which faults cannot be tried here, and why.
    """

    def __init__(self, package: Path, work: Path, *, disk: bool) -> None:
        self.home = work / "home"
        self.missing: dict[str, str] = {}
        if not disk:
            self.missing["full disk"] = "mounting a small disk is not permitted"
        self.clock: FalseClock | None = None
        if false_clock.MISSING:
            self.missing["clock jump"] = false_clock.MISSING
        else:
            self.clock = FalseClock(work)
        self._log = work / "server.log"
        self._command = edgeai_command(package, *OPTIONS, "--kv-disk", str(KV_DISK), "--kv-writes", "100GiB", "--auth")
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._environment = {"EDGEAI_HOME": str(self.home), "PYTHONPATH": path}
        self.admin = self.make_key("watch", "--scope", "admin")
        self.target = Target("", [self.make_key(f"desk-{number}") for number in range(DESKS)])
        self.server: Server
        self._port: int | None = None

    def start(self) -> None:
        """Start it, or start it again where it was. Raises RuntimeError when it does not."""
        clock = self.clock.environment if self.clock else {}
        self.server = Server(self._command, self._log, environment=self._environment | clock, port=self._port)
        self._port = self.server.port
        try:
            self.server.ready()
        except BaseException:
            self.server.kill()
            raise
        self.target.base_url = self.server.base_url
        if self.target.down:
            self.target.down[-1] = (self.target.down[-1][0], time.perf_counter())

    def kill(self) -> None:
        """Without any warning. No client can be answered until the next `start` is done."""
        self.target.down.append((time.perf_counter(), math.inf))
        self.server.kill()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Not a byte is free within the context."""
        filler = self.home / "filler"
        fill(filler, leaving=0)
        try:
            yield
        finally:
            filler.unlink(missing_ok=True)

    def make_key(self, name: str, *options: str) -> str:
        """A new API key. Raises RuntimeError when it is not made."""
        return str(json.loads(self._keys("create", name, "--json", *options))["key"])

    def revoke_key(self, name: str) -> None:
        """Refuse that key from now on. Raises RuntimeError."""
        self._keys("revoke", name)

    def said(self) -> str:
        """All that the server said."""
        return self._log.read_text(errors="replace")

    def _keys(self, *arguments: str) -> str:
        command: Sequence[str] = [self._command[0], "-P", "-m", "edgeai", "keys", *arguments]
        environment = os.environ | self._environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"keys {arguments[0]}: {done.stderr or done.stdout}")
        return done.stdout


@contextlib.contextmanager
def subject(package: Path, work: Path) -> Iterator[Subject]:
    """A server that runs; whatever becomes of it, nothing of it is left in the end."""
    with small_disk(work / "home", DISK) as mounted:
        made = Subject(package, work, disk=mounted)
        made.start()
        try:
            yield made
        finally:
            with made.server:  # killed, if it still runs
                pass
