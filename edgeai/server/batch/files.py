"""Files that clients upload and batches write, on disk, each seen by its owner only."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeai.errors import NotFound, OutOfDisk
from edgeai.package.durable import clean_stale, publish_folder, remove_folder, temporary_folder, write_file

NAME = re.compile(r"file-[0-9a-f]{24}")
CONTENT, ENTRY = "content", "entry.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What is known of a file. `created` is in seconds since 1970, by a clock that may have been wrong."""

    id: str
    name: str
    purpose: str
    size: int
    created: int
    owner: str

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created,
            "expires_at": None,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


def new_file_id() -> str:
    """An id that nobody guesses."""
    return f"file-{secrets.token_hex(12)}"


class FileStore:
    """A folder of files, of at most `limit` bytes together; a file is there whole or not at all."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    def recover(self) -> None:
        """Remove what a crash left behind; once, before anything else."""
        if self.folder.exists():
            clean_stale(self.folder)

    def add(self, name: str, purpose: str, content: bytes, owner: str, *, file_id: str | None = None) -> FileEntry:
        """Keep `content`; one of the same `file_id` is replaced. Raises `OutOfDisk`."""
        self._check_room(len(content))
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = FileEntry(file_id or new_file_id(), name, purpose, len(content), int(time.time()), owner)
        with temporary_folder(self.folder) as temporary:
            write_file(temporary / CONTENT, content)
            write_file(temporary / ENTRY, json.dumps(asdict(entry)).encode())
            publish_folder(temporary, self.folder / entry.id)
        return entry

    def get(self, file_id: str, owner: str) -> FileEntry:
        """The entry of a file. Raises `NotFound`, also for a file of somebody else."""
        path = self.folder / file_id / ENTRY
        if NAME.fullmatch(file_id) and path.exists():
            entry = FileEntry(**json.loads(path.read_bytes()))
            if entry.owner == owner:
                return entry
        raise NotFound(f"there is no file {file_id!r}", "GET /v1/files lists them", param="file_id")

    def read(self, file_id: str, owner: str) -> bytes:
        """The content of a file. Raises `NotFound`."""
        return self.path(file_id, owner).read_bytes()

    def path(self, file_id: str, owner: str) -> Path:
        """Where the content of a file is. Raises `NotFound`."""
        return self.folder / self.get(file_id, owner).id / CONTENT

    def remove(self, file_id: str, owner: str) -> None:
        """Delete a file. Raises `NotFound`."""
        remove_folder(self.folder / self.get(file_id, owner).id)

    def all(self, owner: str) -> list[FileEntry]:
        """The files of `owner`, the newest first."""
        mine = [entry for entry in self._entries() if entry.owner == owner]
        return sorted(mine, key=lambda entry: (entry.created, entry.id), reverse=True)

    def _entries(self) -> Iterator[FileEntry]:
        for path in self.folder.glob(f"file-*/{ENTRY}"):
            yield FileEntry(**json.loads(path.read_bytes()))

    def _check_room(self, size: int) -> None:
        held = sum(entry.size for entry in self._entries())
        if held + size > self._limit:
            raise OutOfDisk(f"files take {held} of {self._limit} bytes, {size} more have no room", "delete some files")
