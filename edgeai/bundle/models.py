"""Installed models as bundles: the files of the package, its adapters, and the other names that it goes by."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from edgeai.bundle.head import Head
from edgeai.bundle.manifest import Manifest
from edgeai.bundle.writer import Contents, describe, save
from edgeai.errors import BundleError, PackageError
from edgeai.package import adapters, durable
from edgeai.package.adapters import SEPARATOR, AdapterStore, InstalledAdapter
from edgeai.package.aliases import AliasFile
from edgeai.package.licence import require_accepted
from edgeai.package.manifest import MANIFEST_NAME, Licence
from edgeai.package.ownership import as_owner_of
from edgeai.package.package import Package
from edgeai.progress import Progress, silent
from edgeai.recipe import Strict, describe_errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ADAPTERS_FOLDER = "adapters"  # in the bundle: adapters/NAME/adapter.json and weights.bin
KEPT_FOLDER = "bundles"  # in the home: heads of bundles that were signed, by the name of the model's folder
KEPT_SUFFIX = ".head"


class ModelInfo(Strict):
    """Metadata of a model's bundle: what an import has to know before the files come."""

    description: str = ""
    digest: str  # `Package.digest`
    target: str  # the processors that it is made for
    licence: Licence
    aliases: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> ModelInfo:
        """Raises `BundleError` for a bundle of something else."""
        if manifest.kind != "model":
            hint = "`edgeai update` takes systems" if manifest.kind == "system" else ""
            raise BundleError(f"the bundle holds a {manifest.kind}, not a model", hint)
        try:
            return cls.model_validate(manifest.metadata)
        except ValidationError as error:
            raise BundleError(f"the bundle's metadata is not a model's: {describe_errors(error)[:500]}") from None


def require_licence(manifest: Manifest, accepted: bool) -> None:
    """Raises `LicenceNotAccepted` for terms that are not open and that the user did not accept."""
    require_accepted(ModelInfo.of(manifest).licence, accepted, manifest.name)


@dataclass(frozen=True)
class Parts:
    """An installed model with all that belongs to it."""

    package: Package
    adapters: tuple[InstalledAdapter, ...]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, package: Package, home: Path) -> Parts:
        """What `home` has for a package."""
        fitting = AdapterStore(home).fitting(package)
        names = {package.name, *(adapter.model_name for adapter in fitting)}
        aliases = {alias: target for alias, target in AliasFile(home).all().items() if target in names}
        return cls(package, fitting, aliases)

    @property
    def files(self) -> dict[str, Path]:
        """Paths by their names in the bundle."""
        found = {name: self.package.path / name for name in (MANIFEST_NAME, *self.package.manifest.files)}
        for adapter in self.adapters:
            for name in (adapters.MANIFEST_NAME, adapters.WEIGHTS_NAME):
                found[f"{ADAPTERS_FOLDER}/{adapter.name}/{name}"] = adapter.path / name
        return found

    @property
    def contents(self) -> Contents:
        """What a bundle of them holds."""
        manifest = self.package.manifest
        info = ModelInfo(
            description=manifest.description,
            digest=self.package.digest,
            target=manifest.target,
            licence=manifest.licence,
            aliases=dict(self.aliases),
        )
        return Contents(
            kind="model",
            name=self.package.name,
            version=self.package.digest[:12],
            files=self.files,
            metadata=info.model_dump(mode="json"),
        )

    def match(self, head: Head) -> bool:
        """Whether a head describes these very files, so that its bundle can be made of them."""
        files, records = self.files, head.manifest.files
        expected = {name: entry.sha256 for name, entry in self.package.manifest.files.items()}
        expected[MANIFEST_NAME] = self.package.digest
        for adapter in self.adapters:
            folder = f"{ADAPTERS_FOLDER}/{adapter.name}"
            expected[f"{folder}/{adapters.MANIFEST_NAME}"] = adapter.digest
            expected[f"{folder}/{adapters.WEIGHTS_NAME}"] = adapter.manifest.weights.sha256
        return records.keys() <= files.keys() and all(record.sha256 == expected[n] for n, record in records.items())


def export_model(
    package: Package, home: Path, target: Path, keys: Sequence[Ed25519PrivateKey], progress: Progress = silent
) -> Head:
    """Write a model into one file. What was signed once is kept in `home`, for `head_of`.

    Raises `PackageError` for a damaged package, `InvalidInput`, `OutOfDisk`.
    """
    package.verify(progress)
    parts = Parts.of(package, home)
    for adapter in parts.adapters:
        adapter.load()
    head = Head.sign(describe(parts.contents, progress), keys)
    save(target, head, parts.files, progress)
    if keys:
        keep_head(package, home, head)
    return head


def head_of(parts: Parts, home: Path, progress: Progress = silent) -> Head:
    """The head of a model's bundle: the one that was signed or imported if it still is of these files, or a new one.

    A new one takes a reading of all files, and is kept where this user may write. Raises `PackageError` for a model
    that is damaged.
    """
    kept = _kept_path(parts.package, home)
    with contextlib.suppress(BundleError, OSError):  # whatever is wrong with what was kept, a new one is right
        head = Head.parse(kept.read_bytes())
        if parts.match(head):
            return head
    head = Head.sign(describe(parts.contents, progress), ())
    if not parts.match(head):
        raise PackageError(f"{parts.package.name} is damaged", "`edgeai verify` says what of it")
    with contextlib.suppress(PermissionError):  # a server may not own its home
        keep_head(parts.package, home, head)
    return head


def keep_head(package: Package, home: Path, head: Head) -> None:
    """So that the board can hand the bundle on as its publisher signed it."""
    path = _kept_path(package, home)
    with as_owner_of(home):
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, head.data)


def own_aliases(info: ModelInfo, name: str) -> dict[str, str]:
    """The other names that a bundle may give: those of its model and of that model's adapters."""
    return {
        alias: target
        for alias, target in info.aliases.items()
        if target == name or target.startswith(f"{name}{SEPARATOR}")
    }


def _kept_path(package: Package, home: Path) -> Path:
    name = hashlib.sha256(str(package.path.resolve()).encode()).hexdigest()[:8]
    return home / KEPT_FOLDER / f"{package.name}-{name}{KEPT_SUFFIX}"
