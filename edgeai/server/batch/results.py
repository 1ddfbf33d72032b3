"""What a batch has answered so far: lines that are on disk before they count, in two files that only grow."""

from __future__ import annotations

import json
import os
import secrets
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeai.package.durable import raise_if_full, write_all

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


class Results:
    """The two files of results in the folder of a batch; what a power cut left unfinished at their ends is dropped."""

    def __init__(self, folder: Path) -> None:
        self.done: set[str] = set()  # custom ids that have an answer
        self.counts = {OUTPUT: 0, ERRORS: 0}
        self._folder = folder
        self._files: dict[str, FileIO] = {}

    def __enter__(self) -> Self:
        for name in (OUTPUT, ERRORS):
            # No buffer: it would keep what the disk had no room for, and write it later, in front of the next line.
            self._files[name] = (self._folder / name).open("ab", buffering=0)
            self._recover(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, custom_id: str, status: int, body: Any) -> None:
        """Keep an answer; what has no status of success goes to the errors. Raises `OutOfDisk`."""
        response = {"status_code": status, "request_id": f"req_{secrets.token_hex(12)}", "body": body}
        line = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id, "response": response, "error": None}
        self._append(OUTPUT if status == 200 else ERRORS, line)
        self.done.add(custom_id)

    def read(self, name: str) -> bytes:
        """All lines of `name`."""
        return (self._folder / name).read_bytes()

    def _append(self, name: str, line: dict[str, Any]) -> None:
        file = self._files[name]
        end = file.seek(0, os.SEEK_END)
        data = json.dumps(line).encode() + b"\n"
        try:
            write_all(file, data)
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self._folder / name, end)  # a line is there whole or not at all
            raise_if_full(error, self._folder / name, len(data))
            raise
        self.counts[name] += 1

    def _recover(self, name: str) -> None:
        """Count whole lines, and cut off what follows the last of them."""
        end = 0
        with (self._folder / name).open("rb") as lines:
            for line in lines:
                custom_id = _custom_id(line)
                if custom_id is None:
                    break
                end += len(line)
                self.done.add(custom_id)
                self.counts[name] += 1
        os.truncate(self._folder / name, end)


def _custom_id(line: bytes) -> str | None:
    """Whose line it is; None for one that is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return str(json.loads(line)["custom_id"])
    except (ValueError, KeyError, TypeError):
        return None
