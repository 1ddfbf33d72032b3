"""How the last server of a package ended: by itself, or of something that deserves a look before the next one starts.

The file is locked for as long as its server lives, so that a second server beside it is no sign of trouble. It is not
written power-safe, for it only tells of deaths that the system survived: a cut of the power is not the settings' fault.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgeai.tuning.cpu_key import PROFILES_FOLDER
from edgeai.tuning.profile import DIGEST_LENGTH

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RunMarker:
    """Held by a server while it runs.

    `died` says how the one before ended: None for well, "starting" before it was ready, "running" later. `deaths` is
    how many in a row died while they started. Without a `home` nothing is remembered.
    """

    def __init__(self, home: Path | None, package: str) -> None:
        self._path = home and home / PROFILES_FOLDER / f"running-{package[:DIGEST_LENGTH]}"
        self._file: IO[str] | None = None
        self.died: str | None = None
        self.deaths = 0

    def __enter__(self) -> Self:
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
        except OSError:  # nothing can be written there: nothing is remembered
            return self
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another server of the same package runs
            file.close()
            return self
        self._file = file
        self._read()
        self._write("starting")
        return self

    def ready(self) -> None:
        """The server answers now."""
        self.deaths = 0
        self._write("running")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """However the block ended, this process was there to see it."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def _read(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        try:
            document = json.loads(self._file.read())
            phase, boot, deaths = document["phase"], document["boot"], int(document["deaths"])
        except (ValueError, KeyError, TypeError):  # empty: the last one ended well
            return
        if boot != boot_id():
            return
        self.died = str(phase)
        self.deaths = deaths + 1 if phase == "starting" else 0

    def _write(self, phase: str) -> None:
        if self._file is None:
            return
        self._file.truncate(0)
        self._file.write(json.dumps({"phase": phase, "boot": boot_id(), "deaths": self.deaths, "pid": os.getpid()}))
        self._file.flush()


def boot_id() -> str:
    """Changes with every start of the system; empty where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
