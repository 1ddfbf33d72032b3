"""The parent's side of a child process that tries settings: questions, answers, and what is seen without one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.package.package import Package

WORKER = (sys.executable, "-m", "edgeai.tuning.worker")
LOAD_SECONDS = 60.0
# Where memory is tight the model then runs at its largest (engine/warm_up.py): some hundred tokens, and boards without
# 8-bit dot products compute two a second of the models that just fit them.
WARM_UP_SECONDS = 240.0
SLOWEST_READ = 5e6  # bytes a second of a bad SD card
CRASHES = {
    signal.SIGILL: "an illegal instruction (SIGILL): the installed onnxruntime is not made for this CPU",
    signal.SIGSEGV: "a memory fault (SIGSEGV)",
    signal.SIGKILL: "a kill (SIGKILL), most likely because memory ran out",
}


def load_timeout(package: Package, settings: EngineSettings) -> float:
    """Seconds after which a package that is still being loaded with these settings never will be."""
    return LOAD_SECONDS + package.size_bytes / SLOWEST_READ + (WARM_UP_SECONDS if settings.tight else 0)


class Child:
    """A process with a model loaded. Every method raises `TrialFailed` when it dies, hangs or refuses."""

    def __init__(
        self, package: Path, settings: EngineSettings, *, timeout: float, worker: Sequence[str] = WORKER
    ) -> None:
        """Start it and wait until it is ready, `timeout` seconds at most."""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*worker, str(package)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        try:
            self._exchange(asdict(settings), timeout, "loading the model")
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, task: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        """The answer to one task."""
        return self._exchange(task, timeout, "answering")

    @property
    def private_bytes(self) -> int:
        """Memory that this process has for itself: what a second one like it would take."""
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._process.pid).memory_full_info().uss)
        return 0

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process.stdin is None or self._process.stdout is None:
            return
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()

    def _exchange(self, document: Mapping[str, Any], timeout: float, doing: str) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("both are pipes")
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(doing) from None
        line = self._line(self._process.stdout, timeout, doing)
        try:
            answer = json.loads(line)
        except ValueError:
            raise TrialFailed(f"{doing} gave {line[:80]!r}") from None
        if not isinstance(answer, dict):
            raise TrialFailed(f"{doing} gave {line[:80]!r}")
        if "error" in answer:
            raise TrialFailed(str(answer["error"]), str(answer.get("hint", "")))
        return answer

    def _line(self, output: IO[bytes], timeout: float, doing: str) -> bytes:
        """One line, read in pieces as it comes, so that half a line does not hold us up."""
        line, deadline = b"", time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TrialFailed(f"{doing} took more than {timeout:.0f} s")
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    raise self._ended(doing)
                line += piece
        return line

    def _ended(self, doing: str) -> TrialFailed:
        code = self._process.wait()
        if code < 0:
            number = signal.Signals(-code)
            return TrialFailed(f"{doing} ended in {CRASHES.get(number, number.name)}")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return TrialFailed(f"{doing} ended with {lines[-1] if lines else f'exit code {code}'}")
