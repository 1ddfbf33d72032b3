"""Stages of a build, each made once: a folder in the cache, named by the digest of all that it is made from.

A build that was cut goes on where it was: a stage appears under its name when it is complete, and what is left of one
that is not is removed. Nothing in a stage is changed afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeai.package.durable import raise_if_full
from edgeai.package.package import file_digest
from edgeai.progress import Progress, silent

_UNFINISHED = ".unfinished-"
_KEY_DIGITS = 16


@dataclass(frozen=True)
class Stages:
    """The cache of a builder."""

    cache: Path
    progress: Progress = silent

    def make(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of stage `name`; `make` fills it if there is none for these inputs yet."""
        final = self.cache / f"{name}-{digest(inputs)[:_KEY_DIGITS]}"
        self.cache.mkdir(parents=True, exist_ok=True)
        with self._only_builder_of(final):
            if final.is_dir():
                self.progress(f"{name}: there already")
                return final
            self.progress(name)
            started = time.monotonic()
            unfinished = self.cache / f"{_UNFINISHED}{final.name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                make(unfinished)
            except OSError as error:
                raise_if_full(error, unfinished, 0)
                raise
            unfinished.rename(final)
            self.progress(f"{name}: made in {time.monotonic() - started:.0f} s")
        return final

    @contextlib.contextmanager
    def _only_builder_of(self, final: Path) -> Iterator[None]:
        with (self.cache / f".{final.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of inputs: anything that JSON can say, in hex."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def tree_digest(folder: Path, *, leave_out: Collection[str] = ()) -> str:
    """SHA-256 over names, modes and contents of all under `folder`, in hex; of nothing where there is no such folder.

    Files and folders of a name in `leave_out` do not count.
    """
    return digest(tree_entries(folder, leave_out))


def tree_entries(folder: Path, leave_out: Collection[str] = ()) -> dict[str, list[Any]]:
    """Links and files under `folder` by their paths from there: where a link leads, or mode and digest."""
    entries: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not set(name.parts).isdisjoint(leave_out):
            continue
        if path.is_symlink():
            entries[name.as_posix()] = ["link", str(path.readlink())]
        elif path.is_file():
            entries[name.as_posix()] = ["file", path.stat().st_mode & 0o111 != 0, file_digest(path)]
    return entries


def code_digest(*modules: ModuleType) -> str:
    """SHA-256 over the source of modules: a stage is made again when what makes it has changed."""
    return digest({module.__name__: inspect.getsource(module) for module in modules})
