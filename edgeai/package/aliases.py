"""Other names for installed models: `aliases.json` in the folder of everything installed.

A client that knows only one name ("gpt-4o-mini", "llama3.2:latest") is served by the model that its name stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package import durable
from edgeai.package.store import Store

FILE_NAME = "aliases.json"
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")

Stamp = tuple[int, int] | None


class AliasFile:
    """The aliases under `home`. A reader sees changes at once, for it looks whether the file is another one."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._store = Store(home)
        self._read: tuple[Stamp, Mapping[str, str]] = (None, {})

    def all(self) -> Mapping[str, str]:
        """Targets by alias. Raises `PackageError` for a file that is not what `set` writes."""
        stamp = self._stamp()
        if stamp != self._read[0]:
            self._read = (stamp, self._load() if stamp else {})
        return self._read[1]

    def set(self, alias: str, target: str) -> None:
        """Let `alias` stand for `target`, a model or a model with an adapter. Raises `InvalidInput`, `OutOfDisk`."""
        check_alias(alias, target)
        if alias in self._store.names():
            raise InvalidInput(f"{alias!r} is an installed model", "choose another name", param="alias")
        with self._store.locked():
            self._write({**self.all(), alias: target})

    def remove(self, alias: str) -> None:
        """Forget an alias. Raises `NotFound`, `OutOfDisk`."""
        with self._store.locked():
            aliases = dict(self.all())
            if alias not in aliases:
                there = ", ".join(sorted(aliases)) or "none"
                raise NotFound(f"there is no alias {alias!r}", f"there is {there}")
            del aliases[alias]
            self._write(aliases)

    def _write(self, aliases: Mapping[str, str]) -> None:
        text = json.dumps(aliases, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        durable.write_file(self.path, text.encode())

    def _stamp(self) -> Stamp:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _load(self) -> Mapping[str, str]:
        try:
            document = json.loads(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise PackageError(f"{self.path} cannot be read: {error}", "mend or remove it") from None
        if not isinstance(document, dict) or not all(isinstance(target, str) for target in document.values()):
            raise PackageError(f"{self.path} is not a JSON object of names by alias", "mend or remove it")
        return document


def check_alias(alias: str, target: str) -> None:
    """Raises `InvalidInput` for what cannot be an alias."""
    if not _ALIAS.fullmatch(alias):
        raise InvalidInput(f"{alias!r} is not an alias", "letters, digits and . _ : / @ -", param="alias")
    if not target or alias == target:
        raise InvalidInput(f"alias {alias!r} stands for nothing", "write ALIAS=MODEL", param="alias")


def parse_aliases(texts: tuple[str, ...]) -> dict[str, str]:
    """Aliases as they are written on a command line: ALIAS=MODEL. Raises `InvalidInput`."""
    found = {}
    for text in texts:
        alias, _, target = text.partition("=")
        check_alias(alias, target)
        found[alias] = target
    return found
