"""The store: one folder of installed packages, by name."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package import durable
from edgeai.package.cpu_targets import GENERIC
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package
from edgeai.package.writer import check_replaceable
from edgeai.recipe import NAME_PATTERN

PACKAGES_FOLDER = "models"
AT = "@"  # between a name and the processors a package is made for
_LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Store:
    """Installed packages under `home`. Readers need no lock: a package is there whole or not at all."""

    home: Path

    @property
    def folder(self) -> Path:
        """Where the packages are, one folder each."""
        return self.home / PACKAGES_FOLDER

    def path_for(self, name: str, target: str = GENERIC.name) -> Path:
        """Where the package called `name`, or NAME@TARGET, is or would be.

        Raises `InvalidInput` for what cannot be a name.
        """
        check_name(name)
        return self.folder / (name if target == GENERIC.name else f"{name}{AT}{target}")

    def get(self, name: str, *, verify: bool = False) -> Package:
        """Open an installed package. Raises `NotFound` with names that are near, `PackageError` when it is damaged."""
        path = self.path_for(name)
        if not path.is_dir():
            names = self.names()
            near = difflib.get_close_matches(name, names, n=3) or names
            there = (
                f"installed: {', '.join(near)}" if near else "nothing is installed yet: `edgeai build` makes a package"
            )
            raise NotFound(f"no model is called {name!r}", there)
        return Package.open(path, verify=verify)

    def open(self, model: str, *, verify: bool = False) -> Package:
        """Open what a user calls a model: an installed package by its name, or any package by its folder.

        Raises as `get` and `Package.open` do.
        """
        path = Path(model)
        if "/" in model or _is_package(path):
            return Package.open(path, verify=verify)
        return self.get(model, verify=verify)

    def names(self) -> tuple[str, ...]:
        """Names of all installed packages, damaged ones too."""
        if not self.folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in self.folder.iterdir() if is_name(p.name) and p.is_dir()))

    def install(self, source: Path) -> Package:
        """Copy the package in folder `source` into the store under its own name, and verify the copy.

        Raises `PackageError` when it is damaged, `OutOfDisk` when there is no room; the store is then as before.
        """
        package = Package.open(source)
        target = self.path_for(package.name, package.manifest.target)
        with self.locked():
            check_replaceable(target)
            with durable.temporary_folder(self.folder) as temporary:
                _copy(package, temporary)
                Package.open(temporary, verify=True)
                durable.publish_folder(temporary, target)
        return Package.open(target)

    def remove(self, name: str) -> None:
        """Remove a package. Raises `NotFound`."""
        with self.locked():
            try:
                path = self.get(name).path
            except PackageError:
                path = self.path_for(name)  # damaged ones can be removed too
            durable.remove_folder(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the store's writers, and clean what a crashed one has left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.home / _LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            durable.clean_stale(self.folder)
            yield

    def list(self) -> tuple[Package, ...]:
        """All packages that open, by name; `get` says of the others what is wrong with them."""
        packages = []
        for name in self.names():
            with contextlib.suppress(NotFound, PackageError):  # NotFound: removed a moment ago
                packages.append(self.get(name))
        return tuple(packages)


def is_name(name: str) -> bool:
    """Whether it can be a package's name, or NAME@TARGET for one that is made for some processors."""
    base, at, target = name.partition(AT)
    return all(re.fullmatch(NAME_PATTERN, part) for part in ((base, target) if at else (base,)))


def check_name(name: str) -> None:
    """Refuse names that are not plain folder names. Raises `InvalidInput`."""
    if not is_name(name):
        raise InvalidInput(f"{name!r} is not a model name", "use lower-case letters, digits, dots and dashes")


def _copy(package: Package, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < package.size_bytes:
        raise durable.no_room(folder / package.name, package.size_bytes)
    for name in (*package.manifest.files, MANIFEST_NAME):
        try:
            shutil.copyfile(package.path / name, folder / name)
        except OSError as error:
            durable.raise_if_full(error, folder / name, package.size_bytes)
            raise


def _is_package(folder: Path) -> bool:
    """Whether a folder holds a package, as far as this user may look: the current one may be somebody else's."""
    try:
        return (folder / MANIFEST_NAME).is_file()
    except PermissionError:
        return False
