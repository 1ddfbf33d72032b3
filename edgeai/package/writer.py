"""Writing a model package: everything goes into a temporary folder that appears under its name when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeai.errors import InvalidInput
from edgeai.package import durable
from edgeai.package.manifest import MANIFEST_NAME, FileEntry, Manifest
from edgeai.package.package import Package, check_file_name, file_digest, manifest_bytes


class PackageWriter:
    """Writes a package beside its target and publishes it in one step, or leaves nothing.

        with PackageWriter(target) as writer:
            writer.write("tokenizer.json", data)
            ...                              # other tools may write into writer.folder
            package = writer.publish(manifest)

    Leaving the block without `publish`, by an error or not, removes what was written. An existing package at `target`
    stays usable until the new one replaces it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._entries: dict[str, FileEntry] = {}
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        """Raises `InvalidInput` where the target is something else than a package."""
        check_replaceable(self.target)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        durable.clean_stale(self.target.parent)
        self._folder = self._stack.enter_context(durable.temporary_folder(self.target.parent))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if isinstance(error, OSError):  # of other tools that write into the folder
                durable.raise_if_full(error, self.folder, self.size_bytes)
        finally:
            self._stack.close()

    @property
    def folder(self) -> Path:
        """The temporary folder, for tools that write files themselves."""
        if self._folder is None:
            raise RuntimeError("a PackageWriter is used inside its with block")
        return self._folder

    @property
    def size_bytes(self) -> int:
        """Bytes in the folder so far."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def write(self, name: str, data: durable.Data, *, size: int | None = None) -> FileEntry:
        """Write one file, whole or in chunks; `size` as far as known. Raises `OutOfDisk`."""
        check_file_name(name)
        path = self.folder / name
        digest = hashlib.sha256()

        def hashed() -> Iterator[durable.Chunk]:
            for chunk in durable.chunks_of(data):
                digest.update(chunk)
                yield chunk

        with path.open("xb", buffering=0) as file:
            written = durable.write_chunks(file, hashed(), path, size=size)
        self._entries[name] = FileEntry(sha256=digest.hexdigest(), size=written)
        return self._entries[name]

    def adopt(self, package: Package) -> None:
        """Take over all files of a package, as links where the filesystem has such, under the digests it vouches for.

        They are not read: what was damaged stays noticeable. Raises `OutOfDisk`.
        """
        for name, entry in package.manifest.files.items():
            source, copy = package.path / name, self.folder / name
            try:
                copy.hardlink_to(source)
            except OSError:  # filesystems without links, and packages on another one
                try:
                    shutil.copyfile(source, copy)
                except OSError as error:
                    durable.raise_if_full(error, copy, entry.size)
                    raise
            self._entries[name] = entry

    def files(self) -> dict[str, FileEntry]:
        """Digest and size of every file in the folder, by name."""
        for path in sorted(self.folder.iterdir()):
            if path.name not in self._entries:
                check_file_name(path.name)
                self._entries[path.name] = FileEntry(sha256=file_digest(path), size=path.stat().st_size)
        return dict(sorted(self._entries.items()))

    def publish(self, manifest: Manifest) -> Package:
        """Write the manifest, its `files` replaced by what was written, and let the package appear at the target.

        Raises `PackageError` where a file is missing that every package has.
        """
        complete = manifest.model_copy(update={"files": self.files()})
        durable.write_file(self.folder / MANIFEST_NAME, manifest_bytes(complete))
        Package.open(self.folder)
        durable.publish_folder(self.folder, self.target)
        return Package.open(self.target)


def check_replaceable(target: Path) -> None:
    """A package may replace a package or an empty folder, never anything else. Raises `InvalidInput`."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise InvalidInput(f"{target} is not a folder", "choose another place for the package")
    if any(target.iterdir()) and not (target / MANIFEST_NAME).is_file():
        raise InvalidInput(f"{target} holds something else than a model package", "choose an empty or a new folder")
