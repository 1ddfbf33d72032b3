"""Nothing of the build machine leaves in an image: what must not be there, by path and by content.

Paths: host keys, machine ids, logs, lists and caches of apt, seeds of random numbers, histories, device ids. Contents:
the mirror that packages came from (unless it is everybody's), this machine's name, its folders, and private keys.
"""

from __future__ import annotations

import fnmatch
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import edgeai
from edgeai.errors import ValidationFailed
from edgeai.imaging.tree import Entry, Tree

FORBIDDEN_FILES = {
    "etc/ssh/ssh_host_*": "a host key: every board would have the same",
    "etc/apt/sources.list*": "the mirror of the build machine",
    "etc/apt/*": "settings of the build machine's apt",
    "var/lib/apt/*": "lists of the build machine's apt",
    "var/cache/*": "a cache",
    "var/log/*": "a log of the build",
    "var/backups/*": "a backup of the build",
    "var/lib/dbus/machine-id": "a machine's id: every board would be the same machine",
    "var/lib/systemd/random-seed": "a seed of random numbers: every board would draw the same",
    "*/random-seed": "a seed of random numbers: every board would draw the same",
    "*/.*_history": "a history of commands",
    "*/.cache/*": "a cache",
    "*/deviceid*": "a device's id",
    "*/.onnxruntime/*": "an id of onnxruntime's telemetry",
    "tmp/*": "a temporary file",
    "root/*": "a file of the build's user",
    "etc/*-": "a backup of the build",
}
UNSET_MACHINE_ID = (b"uninitialized\n", b"")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{60,}")
_ANYBODY = frozenset({"localhost", "debian", "builder", "edgeai", "ubuntu", "raspberrypi", "host", "buildd"})
_SHORTEST_NAME = 4
_SHOWN = 20
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Machine:
    """What a build machine could be known by."""

    words: tuple[str, ...]

    @classmethod
    def here(cls, mirrors: Iterable[str], *folders: Path, distribution: str = "") -> Self:
        """What is known of this machine: its mirrors, name, checkout, home and the folders that are given.

        Mirrors under the domain of the `distribution` are everybody's, and packages name them.
        """
        words = [str(Path(edgeai.__file__).resolve().parents[1]), *(str(folder.resolve()) for folder in folders)]
        words.append("/tmp/mmdebstrap.")  # noqa: S108
        name = socket.gethostname()
        if len(name) >= _SHORTEST_NAME and name.lower() not in _ANYBODY:
            words.append(name)
        home = str(Path.home())
        if home.startswith("/home/"):
            words.append(home)
        hosts = {urlsplit(mirror).hostname for mirror in mirrors}
        words += sorted(host for host in hosts if host and not (distribution and host.endswith(f".{distribution}")))
        return cls(tuple(dict.fromkeys(words)))


def check_tree(tree: Tree, machine: Machine, what: str) -> None:
    """Raises `ValidationFailed` with every leak that is found."""
    leaks = list(find_leaks(tree, machine))
    if leaks:
        shown = "".join(f"\n  {leak}" for leak in leaks[:_SHOWN])
        more = f"\n  and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise ValidationFailed(f"{what} has something of the build machine in it:{shown}{more}")


def find_leaks(tree: Tree, machine: Machine) -> Iterator[str]:
    """Each leak with its path and why it is one."""
    words = re.compile(b"|".join(re.escape(word.encode()) for word in machine.words)) if machine.words else None
    for path, entry in tree.files():
        for pattern, why in FORBIDDEN_FILES.items():
            if fnmatch.fnmatch(path, pattern):
                yield f"{path}: {why}"
                break
        if path == "etc/machine-id" and entry.read() not in UNSET_MACHINE_ID:
            yield f"{path}: a machine's id: every board would be the same machine"
        yield from (f"{path}: {why}" for why in _found_in(entry, words))


def _found_in(entry: Entry, words: re.Pattern[bytes] | None) -> Iterator[str]:
    """What a file's content tells, read in pieces that overlap."""
    found: set[str] = set()
    tail = b""
    with entry.open() as file:
        left = entry.info.size
        while left > 0 and (piece := file.read(min(_CHUNK, left))):
            left -= len(piece)
            text = tail + piece
            found |= {
                f"contains {match.decode(errors='replace')!r}" for match in (words.findall(text) if words else ())
            }
            if _PRIVATE_KEY.search(text):
                found.add("contains a private key")
            tail = text[-256:]
    yield from sorted(found)
