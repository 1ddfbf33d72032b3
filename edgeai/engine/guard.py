"""Looks at memory while a run is under way, and ends the run where waiting for its end could be too late.

A run may take seconds on a small board, and a neighbour may take all that is left meanwhile. What can be given back
without ending the run is given back by the look itself. An interrupted step leaves the books as they were and is
computed again, with less.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

INTERVAL = 0.025  # seconds between looks, while a run is under way
FAILED_INTERVAL = 1.0  # seconds without a look after one that failed, so that the log does not fill the disk

log = logging.getLogger("edgeai.memory")


class RunGuard:
    """A context around runs: calls `interrupt` when `scarce` says so. Its thread starts when it is first needed.

    No look is under way outside of the block, so that `scarce` may touch what the run does not.
    """

    def __init__(self, scarce: Callable[[], bool], interrupt: Callable[[], None]) -> None:
        self._scarce, self._interrupt = scarce, interrupt
        self._working, self._looking = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def close(self) -> None:
        """End the thread: what it calls keeps a model in memory."""
        self._closed = True
        self._working.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edgeai-guard", daemon=True)
            self._thread.start()
        self._working.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._working.clear()
        with self._looking:  # a look that has begun ends first
            pass

    def _run(self) -> None:
        while True:
            self._working.wait()
            if self._closed:
                return
            time.sleep(INTERVAL)
            try:
                with self._looking:
                    if self._working.is_set() and self._scarce():
                        self._interrupt()
            except Exception:  # runs go on, and the next look may see something
                log.exception("memory could not be looked at")
                time.sleep(FAILED_INTERVAL)
