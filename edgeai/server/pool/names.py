"""From what a request calls a model to a package: installed names, aliases, adapters as "base:adapter", defaults."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package.adapters import SEPARATOR, AdapterStore
from edgeai.package.aliases import AliasFile, parse_aliases
from edgeai.package.manifest import Kind
from edgeai.package.package import Package
from edgeai.server.pool.catalog import Catalog
from edgeai.server.pool.kinds import none_of, wrong_kind

DEFAULT = "default"
DEFAULT_NAMES = frozenset({None, "", DEFAULT})

log = logging.getLogger("edgeai.server")


@dataclass(frozen=True, slots=True)
class Target:
    """What answers: a package by its name in the catalog, and perhaps an adapter."""

    name: str
    package: Package
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that can be asked for. `parent` is the base of an adapter, `root` the package that answers in the end."""

    name: str
    root: str
    package: Package
    parent: str | None = None


class Names:
    """Installed names come before aliases, those of the settings before those of the file.

    Adapters are looked up when they are asked for: one that is installed or removed while the server runs is there, or
    gone, from the next request on. `preferred` come first among the defaults.
    """

    def __init__(
        self,
        catalog: Catalog,
        adapters: AdapterStore | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        alias_file: AliasFile | None = None,
        preferred: Sequence[str] = (),
    ) -> None:
        self._catalog, self.adapters = catalog, adapters
        self._aliases, self._alias_file = dict(aliases or {}), alias_file
        self._preferred = preferred

    def follow(self, settings: ServerSettings) -> None:
        """Take over other aliases, and what comes first among the defaults. Aliases that cannot be change nothing."""
        self._preferred = (*settings.pin, *settings.preload)
        try:
            self._aliases = parse_aliases(settings.alias)
        except InvalidInput as error:
            log.error("aliases stay as they were: %s", error)

    def packages(self) -> Mapping[str, Package]:
        """All packages by name."""
        return self._catalog.packages()

    def resolve(self, name: str | None, kind: Kind | None = None) -> Target:
        """What answers to `name`.

        Raises `NotFound`, `InvalidInput` for a model of another kind than is wanted, `PackageError` for a damaged one.
        """
        target = self._target(name, kind or "decoder")
        found = target.package.manifest.kind
        if kind is not None and found != kind:
            raise wrong_kind(target.name, found, kind)
        return target

    def _target(self, name: str | None, kind: Kind) -> Target:
        packages = self.packages()
        wanted = name or DEFAULT
        if wanted not in packages:
            wanted = self.aliases().get(wanted, wanted)
        if wanted in packages:
            return Target(wanted, packages[wanted])
        if wanted in DEFAULT_NAMES:
            return self._default(kind)
        base, separator, adapter = wanted.partition(SEPARATOR)
        if separator and self.adapters is not None and base in packages:
            return Target(base, packages[base], adapter)
        self._catalog.explain(wanted)
        raise NotFound(f"there is no model {wanted!r}", f"there is {', '.join(self.all())}")

    def _default(self, kind: Kind) -> Target:
        packages = self.packages()
        for name in (*(name for name in self._preferred if name in packages), *packages):
            if packages[name].manifest.kind == kind:
                return Target(name, packages[name])
        raise none_of(kind)

    def aliases(self) -> Mapping[str, str]:
        """Targets by alias."""
        if self._alias_file is None:
            return self._aliases
        try:
            return {**self._alias_file.all(), **self._aliases}
        except PackageError as error:
            log.warning("%s", error)
            return self._aliases

    def all(self) -> list[str]:
        """All names that can be asked for."""
        return sorted(listed.name for listed in self.listed())

    def listed(self) -> list[Listed]:
        """All names with what they stand for; an alias for nothing is left out."""
        packages = self.packages()
        own = [Listed(name, name, package) for name, package in packages.items()]
        own += [listed for name, package in packages.items() for listed in self._adapted(name, package)]
        known = {listed.name: listed for listed in own}
        aliased = [(alias, known[target]) for alias, target in self.aliases().items() if target in known]
        others = [Listed(alias, target.root, target.package) for alias, target in aliased if alias not in known]
        return sorted([*own, *others], key=lambda listed: listed.name)

    def get(self, name: str) -> Listed:
        """What a name stands for. Raises as `resolve`."""
        target = self.resolve(name)
        known = {listed.name: listed for listed in self.listed()}
        if name in known:
            return known[name]
        if target.adapter is not None and self.adapters is not None:
            self.adapters.get_for(target.package, target.adapter)  # which says what is wrong with it
        return known[target.name]

    def _adapted(self, name: str, package: Package) -> Iterator[Listed]:
        if self.adapters is None or package.manifest.kind != "decoder":
            return
        for adapter in self.adapters.fitting(package):
            yield Listed(f"{name}{SEPARATOR}{adapter.name}", name, package, parent=name)
