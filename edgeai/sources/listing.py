"""What hubs have in common: a commit's files as a hub lists them, and how to ask for one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edgeai.errors import SourceError
from edgeai.http_client import Request, ServerRefusal
from edgeai.package.durable import write_file
from edgeai.sources.http_download import RemoteFile

COMMIT = re.compile(r"[0-9a-f]{40}")
_YES = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True)
class Listing:
    """A commit as its hub lists it."""

    commit: str
    files: tuple[RemoteFile, ...]
    licence: str | None = None  # as the model card states it


class Hub(Protocol):
    """A place that keeps repositories. `kind` is its name in recipes, provenance and the cache."""

    kind: str
    title: str

    @property
    def offline(self) -> str | None:
        """The setting that forbids connections, as people would write it; None where they are allowed."""

    def listing(self, repo: str, revision: str) -> Listing:
        """The commit that `revision` means now. Raises `SourceError`."""

    def request(self, repo: str, commit: str, name: str) -> Request:
        """What to ask for to get one file."""

    def explain(self, refusal: ServerRefusal, repo: str, what: str) -> SourceError:
        """A refusal in the words of this hub."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: a repository at a commit, branch or tag, and which files of it."""

    repo: str
    revision: str
    files: tuple[str, ...] = ()  # names or patterns; none: what a build needs
    sha256: Mapping[str, str] | None = None  # digests that must be the files', whatever the hub says


def offline_setting(*names: str) -> str | None:
    """The first of these environment variables that is on, as people write it."""
    return next((f"{name}=1" for name in names if os.environ.get(name, "").upper() in _YES), None)


def write_listing(folder: Path, listing: Listing) -> None:
    """Record a listing in the folder of its repository."""
    write_file(folder / f"{listing.commit}.json", json.dumps(asdict(listing), indent=1).encode())


def with_pins(files: tuple[RemoteFile, ...], wanted: Wanted) -> tuple[RemoteFile, ...]:
    """The files with the digests that the recipe pins. Raises `SourceError` where the hub lists others."""
    pins = dict(wanted.sha256 or {})
    result = []
    for file in files:
        pin = pins.pop(file.name, None)
        if pin and file.sha256 not in (None, pin):
            raise SourceError(
                f"{wanted.repo}: {file.name} is listed with sha256 {file.sha256}, the recipe pins {pin}",
                "the repository or mirror has another file than the recipe was written for; nothing was downloaded",
            )
        result.append(replace(file, sha256=pin) if pin else file)
    if pins:
        raise SourceError(f"{wanted.repo}: no file {', '.join(sorted(pins))} among those chosen", "correct the recipe")
    return tuple(result)


def read_listing(path: Path) -> Listing | None:
    """A listing that was recorded; None where there is none, or none that can be read: it is then asked for anew."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(RemoteFile(**entry) for entry in document["files"])
        return Listing(document["commit"], files, document["licence"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
