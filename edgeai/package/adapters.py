"""Installed adapters: for each base package a folder of them, bound to the base's very weights by their digest."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package import durable
from edgeai.package.manifest import FileEntry, Strict
from edgeai.package.package import Package, file_digest
from edgeai.recipe import NAME_PATTERN, describe_errors

ADAPTERS_FOLDER = "adapters"
MANIFEST_NAME = "adapter.json"
WEIGHTS_NAME = "weights.bin"
SCHEMA_VERSION = 1
SEPARATOR = ":"  # between a base and its adapter, as users and clients write it
_LOCK_NAME = ".lock"
_AGAIN = "add it again with `edgeai adapter add`"

Floats = NDArray[np.float32]


class AdapterOrigin(Strict):
    """What the adapter was made from, and what made it."""

    location: str  # the folder's name
    sha256: dict[str, str]
    builder: str


class StoredTerm(Strict):
    """The two factors of one site as they lie in the weights file: a [inputs, rank], then b [rank, outputs]."""

    site: int
    inputs: int
    rank: int
    outputs: int


class AdapterManifest(Strict):
    """adapter.json, whole."""

    schema_version: int = SCHEMA_VERSION
    name: str
    base: str
    base_digest: str  # `Package.model_digest`
    rank: int  # the largest of its matrices
    parameters: int
    scale: float  # what all of it was multiplied by, beyond the adapter's own alpha / r
    terms: tuple[StoredTerm, ...]
    weights: FileEntry
    origin: AdapterOrigin


@dataclass(frozen=True)
class InstalledAdapter:
    """An adapter on disk; its manifest was read, its weights were not."""

    path: Path
    manifest: AdapterManifest

    @property
    def name(self) -> str:
        """The part of the model's name behind the colon."""
        return self.manifest.name

    @property
    def model_name(self) -> str:
        """What clients ask for."""
        return f"{self.manifest.base}{SEPARATOR}{self.name}"

    @functools.cached_property
    def digest(self) -> str:
        """The adapter's identity: sha256 of its manifest, which holds the digest of its weights."""
        return hashlib.sha256(manifest_bytes(self.manifest)).hexdigest()

    def fits(self, base: Package) -> bool:
        """Whether it was made for this build of the base."""
        return self.manifest.base_digest == base.model_digest

    def load(self) -> dict[int, tuple[Floats, Floats]]:
        """The factors by site, memory-mapped. Raises `PackageError` where the file is not the one that was written."""
        path, entry = self.path / WEIGHTS_NAME, self.manifest.weights
        if not path.is_file() or path.stat().st_size != entry.size or file_digest(path) != entry.sha256:
            raise PackageError(f"adapter {self.model_name} is damaged: {path} is not what was written", _AGAIN)
        if 4 * sum((term.inputs + term.outputs) * term.rank for term in self.manifest.terms) != entry.size:
            raise PackageError(f"adapter {self.model_name} is damaged: {MANIFEST_NAME} contradicts itself", _AGAIN)
        values = np.memmap(path, np.float32, "c")  # copy on write: onnxruntime wants writable memory, and writes none
        terms, at = {}, 0
        for term in self.manifest.terms:
            split, end = at + term.inputs * term.rank, at + (term.inputs + term.outputs) * term.rank
            a, b = values[at:split].reshape(term.inputs, -1), values[split:end].reshape(-1, term.outputs)
            terms[term.site] = (np.asarray(a), np.asarray(b))
            at = end
        return terms


@dataclass(frozen=True)
class AdapterStore:
    """All installed adapters under `home`. Readers need no lock: an adapter is there whole or not at all."""

    home: Path

    def folder(self, base: str) -> Path:
        """Where the adapters of the package called `base` are."""
        return self.home / ADAPTERS_FOLDER / _checked(base)

    def names(self, base: str) -> tuple[str, ...]:
        """Names of a base's adapters, damaged ones too."""
        folder = self.folder(base)
        if not folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in folder.iterdir() if re.fullmatch(NAME_PATTERN, p.name) and p.is_dir()))

    def bases(self) -> tuple[str, ...]:
        """Names of all packages that have adapters."""
        folder = self.home / ADAPTERS_FOLDER
        if not folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in folder.iterdir() if re.fullmatch(NAME_PATTERN, p.name) and p.is_dir()))

    def get(self, base: str, name: str) -> InstalledAdapter:
        """Raises `NotFound`, and `PackageError` for a damaged one."""
        path = self.folder(base) / _checked(name)
        if not path.is_dir():
            there = ", ".join(self.names(base))
            hint = f"there is {there}" if there else "`edgeai adapter add` installs one"
            raise NotFound(f"{base} has no adapter {name!r}", hint)
        return InstalledAdapter(path, _read_manifest(path / MANIFEST_NAME))

    def get_for(self, base: Package, name: str) -> InstalledAdapter:
        """As `get`, and raises `PackageError` for one that was made for another build of the base."""
        adapter = self.get(base.name, name)
        if not adapter.fits(base):
            raise PackageError(f"adapter {adapter.model_name} was made for another build of {base.name}", _AGAIN)
        return adapter

    def fitting(self, base: Package) -> tuple[InstalledAdapter, ...]:
        """The adapters that can be used with this build of the base."""
        found = []
        for name in self.names(base.name):
            with contextlib.suppress(NotFound, PackageError):  # `get_for` says of the others what is wrong
                found.append(self.get_for(base, name))
        return tuple(found)

    def add(self, manifest: AdapterManifest, weights: list[Floats]) -> InstalledAdapter:
        """Install an adapter; the one that has its name is replaced. `weights` follow each other as its terms say.

        Raises `OutOfDisk`; the store is then as before.
        """
        folder = self.folder(manifest.base)
        target = folder / _checked(manifest.name)
        with self._locked(folder), durable.temporary_folder(folder) as temporary:
            data = [np.ascontiguousarray(part, np.float32).data.cast("B") for part in weights]
            digest = hashlib.sha256()
            for part in data:
                digest.update(part)
            size = durable.write_file(temporary / WEIGHTS_NAME, data, size=sum(part.nbytes for part in data))
            entry = FileEntry(sha256=digest.hexdigest(), size=size)
            complete = manifest.model_copy(update={"weights": entry})
            durable.write_file(temporary / MANIFEST_NAME, manifest_bytes(complete))
            durable.publish_folder(temporary, target)
        return InstalledAdapter(target, complete)

    def adopt(self, base: Package, name: str, source: Path) -> InstalledAdapter:
        """Move the adapter in folder `source`, on the same filesystem, to its place; the one there is replaced.

        Raises as `open_adapter` does.
        """
        adapter = open_adapter(base, name, source)
        folder = self.folder(base.name)
        target = folder / _checked(name)
        with self._locked(folder):
            durable.publish_folder(source, target)
        return InstalledAdapter(target, adapter.manifest)

    def remove(self, base: str, name: str) -> None:
        """Raises `NotFound`."""
        folder = self.folder(base)
        with self._locked(folder):
            with contextlib.suppress(PackageError):  # damaged ones can be removed too
                self.get(base, name)
            durable.remove_folder(folder / name)

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Hold the lock of the store's writers, and clean what a crashed one has left."""
        folder.mkdir(parents=True, exist_ok=True)
        with (self.home / ADAPTERS_FOLDER / _LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            durable.clean_stale(folder)
            yield


def open_adapter(base: Package, name: str, folder: Path) -> InstalledAdapter:
    """The adapter in a folder. Raises `PackageError` for one that is not `name`, not whole or not of this `base`."""
    adapter = InstalledAdapter(folder, _read_manifest(folder / MANIFEST_NAME))
    if (adapter.manifest.base, adapter.name) != (base.name, name) or not adapter.fits(base):
        raise PackageError(f"adapter {adapter.model_name} is not {name} for this build of {base.name}", _AGAIN)
    adapter.load()
    return adapter


def manifest_bytes(manifest: AdapterManifest) -> bytes:
    """The manifest as it is written: the same content always gives the same bytes."""
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def split_name(model: str) -> tuple[str, str | None]:
    """What users write, "base" or "base:adapter", in its two parts. A folder of that very name is no adapter."""
    base, separator, name = model.rpartition(SEPARATOR)
    return (base, name) if separator and not Path(model).exists() else (model, None)


def _read_manifest(path: Path) -> AdapterManifest:
    try:
        return AdapterManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PackageError(f"{path} is not valid: {describe_errors(error)}", _AGAIN) from None
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error}", _AGAIN) from None


def _checked(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(f"{name!r} is not a name", "use lower-case letters, digits, dots and dashes")
    return name
