"""The packages that a server has to offer, by name; looked up again when anything about them has changed on disk."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import get_args

from edgeai.config import ServerSettings, home_dir
from edgeai.errors import NotFound
from edgeai.package.manifest import MANIFEST_NAME, Kind
from edgeai.package.package import Package
from edgeai.package.store import AT, Store

Packages = Mapping[str, Package]


class Catalog:
    """Packages by the names they are asked for, those of a kind in the order in which they are that kind's default.

    `read` opens them, `paths` are the folders whose manifests tell whether they are still the same.
    """

    def __init__(
        self, read: Callable[[], Packages], paths: Callable[[], Iterable[Path]], store: Store | None = None
    ) -> None:
        """With a `store`, what is in it and does not open can be explained."""
        self._read, self._paths, self._store = read, paths, store
        self._stamp: Hashable = None
        self._packages: Packages = {}

    def packages(self) -> Packages:
        """All of them, as they are now; costs a look at each manifest's date. Raises as `read` does."""
        stamp = tuple(_stamp(path) for path in self._paths())
        if stamp != self._stamp:
            self._packages, self._stamp = self._read(), stamp
        return self._packages

    def explain(self, name: str) -> None:
        """Raises `PackageError` for a package that is there but does not open."""
        if self._store is not None and name in self._store.names():
            self._store.get(name)


def open_catalog(settings: ServerSettings) -> Catalog:
    """What the settings name, or else everything that is installed, also later on.

    Raises `NotFound` where there is nothing, and what opening a package by its name raises.
    """
    store = Store(home_dir())
    catalog = _installed(store) if settings.model is None else _named(store, (settings.model, *settings.also))
    if not catalog.packages():
        raise NotFound(f"no model is installed in {store.folder}", "`edgeai build RECIPE` makes one")
    return catalog


def at_start(catalog: Catalog, settings: ServerSettings) -> Packages:
    """What is loaded before the first request, a language model first: what is pinned or to be preloaded, the first
    language model that was named, and whatever is the only one of its kind. Raises `NotFound`.
    """
    packages = catalog.packages()
    for name in (*settings.pin, *settings.preload):
        if name not in packages:
            raise NotFound(f"there is no model {name!r} to load", f"there is {', '.join(packages)}")
    chosen = [*settings.pin, *settings.preload]
    for kind in get_args(Kind):
        same = [name for name, package in packages.items() if package.manifest.kind == kind]
        if len(same) == 1 or (settings.model is not None and kind == "decoder"):
            chosen += same[:1]
    names = sorted(dict.fromkeys(chosen), key=lambda name: packages[name].manifest.kind != "decoder")
    return {name: packages[name] for name in names}


def decoders(catalog: Catalog) -> int:
    """How many language models there are, at least one."""
    return max(1, sum(package.manifest.kind == "decoder" for package in catalog.packages().values()))


def first_kind(catalog: Catalog, first: Packages) -> Kind:
    """The kind of model that a first request is for."""
    kinds = [package.manifest.kind for package in (first or catalog.packages()).values()]
    return "decoder" if "decoder" in kinds else kinds[0]


def _installed(store: Store) -> Catalog:
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import chosen_variants

    cpu = read_cpu()
    return Catalog(
        lambda: {_base_name(package): package for package in chosen_variants(store, cpu)},
        lambda: (store.folder / name for name in store.names()),
        store,
    )


def _named(store: Store, names: tuple[str, ...]) -> Catalog:
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import open_variant

    cpu = read_cpu()

    def read() -> Packages:
        return {package.name: package for package in (open_variant(store, name, cpu) for name in dict.fromkeys(names))}

    folders = tuple(package.path for package in read().values())
    return Catalog(read, lambda: folders)


def _base_name(package: Package) -> str:
    """The name it is installed under, without the processors it is made for."""
    return package.path.name.partition(AT)[0]


def _stamp(folder: Path) -> Hashable:
    try:
        status = (folder / MANIFEST_NAME).stat()
    except OSError:
        return folder.name
    return folder.name, status.st_ino, status.st_mtime_ns
