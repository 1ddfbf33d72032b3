"""A root file system as a tar, put together without being root: entries by path, each owned and dated as it is to be.

Written sorted and with one date, so that the same entries give the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Self

ROOT_OWNER = (0, 0)
_FOLDER_MODE = 0o755


@dataclass(frozen=True)
class Entry:
    """A file, folder, link or device. The contents of a file are bytes, or a file of this machine, or lie in a tar."""

    info: tarfile.TarInfo
    source: bytes | Path | tuple[Path, int] = b""  # (a tar, where in it)

    def open(self) -> IO[bytes]:
        """The contents, to be read from the start on; `info.size` bytes of them."""
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        path, offset = self.source if isinstance(self.source, tuple) else (self.source, 0)
        file = path.open("rb")
        file.seek(offset)
        return file

    def read(self) -> bytes:
        """All of the contents."""
        with self.open() as file:
            return file.read(self.info.size)


@dataclass
class Tree:
    """Entries by their path from the root, without a slash at the front: "etc/hostname"."""

    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def from_tar(cls, path: Path) -> Self:
        """All entries of a tar; contents are read from it when they are needed."""
        tree = cls()
        with tarfile.open(path) as tar:
            for info in tar:
                name = clean(info.name)
                if name:
                    tree.entries[name] = Entry(info, (path, info.offset_data))
        return tree

    def __contains__(self, path: str) -> bool:
        return clean(path) in self.entries

    def files(self) -> Iterator[tuple[str, Entry]]:
        """Regular files, by path."""
        return ((path, entry) for path, entry in sorted(self.entries.items()) if entry.info.isreg())

    def add_file(
        self, path: str, source: bytes | Path, *, mode: int = 0o644, owner: tuple[int, int] = ROOT_OWNER
    ) -> None:
        """Put a file there, in the place of what was there, with all folders above it."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._add(path, tarfile.REGTYPE, mode, owner, source, size=size)

    def add_link(self, path: str, target: str) -> None:
        """Put a symbolic link there."""
        self._add(path, tarfile.SYMTYPE, 0o777, ROOT_OWNER, link=target)

    def add_folder(self, path: str, *, mode: int = 0o755, owner: tuple[int, int] = ROOT_OWNER) -> None:
        """Put a folder there; what is in one of that name stays."""
        self._add(path, tarfile.DIRTYPE, mode, owner)

    def add_tree(self, folder: Path, at: str = "", *, owner: tuple[int, int] = ROOT_OWNER) -> None:
        """Put all that is in a folder of this machine there: links as links, files as they can be executed or not."""
        for path in sorted(folder.rglob("*")):
            name = f"{at}/{path.relative_to(folder).as_posix()}"
            if path.is_symlink():
                self.add_link(name, str(path.readlink()))
            elif path.is_dir():
                if clean(name) not in self.entries:
                    self.add_folder(name, owner=owner)
            else:
                self.add_file(name, path, mode=0o755 if path.stat().st_mode & 0o100 else 0o644, owner=owner)

    def remove(self, *paths: str) -> None:
        """Remove what is there, and all that is in it. What was linked to it by a hard link keeps the contents."""
        names = {clean(path) for path in paths}
        gone = {
            one: entry
            for one, entry in self.entries.items()
            if one in names or not names.isdisjoint(map(str, PurePosixPath(one).parents))
        }
        for one in gone:
            del self.entries[one]
        heirs: dict[str, str] = {}
        for one, entry in sorted(self.entries.items()):
            target = clean(entry.info.linkname)
            if entry.info.islnk() and target in gone:
                heir = heirs.setdefault(target, one)
                self.entries[one] = gone[target] if heir == one else Entry(_linked(entry.info, heir))

    def write(self, path: Path, epoch: int, *, top: bool = False) -> None:
        """The tar. Hard links come after all else, for what they link to has to be there.

        `top` writes the root's own folder as well: mkfs.erofs would make one that everybody may write to.
        """
        ordered = sorted(self.entries.items(), key=lambda item: (item[1].info.islnk(), item[0]))
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            if top:
                tar.addfile(_dated(_folder(_FOLDER_MODE), "./", epoch))
            for name, entry in ordered:
                info = _dated(entry.info, name, epoch)
                if info.isreg():
                    with entry.open() as file:
                        tar.addfile(info, file)
                else:
                    tar.addfile(info)

    def _add(
        self,
        path: str,
        kind: bytes,
        mode: int,
        owner: tuple[int, int],
        source: bytes | Path = b"",
        *,
        size: int = 0,
        link: str = "",
    ) -> None:
        name = clean(path)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, size, link
        info.uid, info.gid = owner
        at = self._through_links(name)
        for parent in PurePosixPath(at).parents:
            if str(parent) != "." and str(parent) not in self.entries:
                self.add_folder(str(parent))
        self.entries[at] = Entry(info, source)

    def _through_links(self, name: str) -> str:
        """The path with links to folders followed: lib/x lies in usr/lib/x."""
        for parent in reversed(PurePosixPath(name).parents):
            entry = self.entries.get(str(parent))
            if entry and entry.info.issym():
                target = clean(str(PurePosixPath("/", *parent.parent.parts) / entry.info.linkname))
                return self._through_links(f"{target}/{PurePosixPath(name).relative_to(parent)}")
        return name


def _linked(info: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
    return info.replace(linkname=target, deep=False)


def _folder(mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def clean(path: str) -> str:
    """A path without the root's slash, `.` and `..`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _dated(info: tarfile.TarInfo, name: str, epoch: int) -> tarfile.TarInfo:
    """The entry as it is written: one date, no names of this machine's users."""
    keep = {key: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    link = clean(info.linkname) if info.islnk() else info.linkname
    dated = info.replace(name=name, mtime=epoch, uname="", gname="", linkname=link, deep=False)
    dated.pax_headers = keep
    return dated
