"""Installing models from bundles: whole or not at all, going on where an earlier import was interrupted.

The files come together in `incoming/NAME-DIGEST` of the home, on the filesystem of the store, and are moved into their
places when everything is there and was read back. The base comes first, so that a cut in between leaves a model without
an adapter, never an adapter without its model; the next import of the bundle does the rest.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeai.bundle.assembly import Assembly, Seed, Tally, require_room
from edgeai.bundle.keys import TrustedKey, TrustStore
from edgeai.bundle.manifest import FileRecord, Manifest
from edgeai.bundle.models import ADAPTERS_FOLDER, ModelInfo, keep_head, own_aliases
from edgeai.bundle.reader import Bundle
from edgeai.errors import BundleError, InvalidInput, NotFound, PackageError, Untrusted
from edgeai.package import adapters, durable
from edgeai.package.adapters import AdapterStore, open_adapter
from edgeai.package.aliases import AliasFile
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.package.writer import check_replaceable
from edgeai.progress import Progress, silent

INCOMING_FOLDER = "incoming"
SPARE_BYTES = 16 << 20  # of the disk, left for everything else
_DIGEST_LETTERS = 16
_PACKAGE = "package"  # in the incoming folder

Files = Mapping[str, FileRecord]


@dataclass(frozen=True)
class Imported:
    """What an import did, in bytes of files: `fetched` came from the bundle, `received` over the line or from it."""

    package: Package
    signed_by: TrustedKey | None
    adapters: tuple[str, ...]
    aliases: tuple[str, ...]
    there: int = 0
    reused: int = 0
    fetched: int = 0
    received: int = 0


def check_signed(bundle: Bundle, trust: TrustStore, *, unsigned: bool) -> TrustedKey | None:
    """Who signed a model's bundle; `unsigned`: nobody has to. Raises `Untrusted`."""
    try:
        return trust.check(bundle.head)
    except Untrusted as error:
        if unsigned:
            return None
        raise Untrusted(error.message, f"{error.hint}; --unsigned takes what nobody answers for") from None


def import_model(
    bundle: Bundle, home: Path, signed_by: TrustedKey | None, *, delta: bool = True, progress: Progress = silent
) -> Imported:
    """Install the model of a bundle. `delta` looks for what is already here in the installed models.

    Raises `BundleError`, `PackageError`, `OutOfDisk`, `SourceError`; what came is kept for another try, and the
    store is as before.
    """
    manifest = bundle.head.manifest
    info = ModelInfo.of(manifest)
    store = Store(home)
    target = store.path_for(manifest.name, info.target)
    check_replaceable(target)
    names = _adapter_names(manifest.files)
    with _incoming(home, manifest.name, bundle.head.digest) as folder:
        here = _installed(manifest, info, target, home, names)
        needed = {name: record for name, record in manifest.files.items() if name not in here}
        tally = _collect(bundle, store, folder, needed, delta=delta, progress=progress)
        package = _install(manifest, info, store, folder, needed)
        aliases = _set_aliases(home, own_aliases(info, manifest.name))
        keep_head(package, home, bundle.head)
        shutil.rmtree(folder)
        _forget_others(folder)
    there = manifest.size_bytes - tally.reused - tally.fetched
    received = bundle.origin.received
    return Imported(package, signed_by, tuple(names), aliases, there, tally.reused, tally.fetched, received)


def _collect(bundle: Bundle, store: Store, folder: Path, needed: Files, *, delta: bool, progress: Progress) -> Tally:
    """Bring the files that are needed together in `folder`."""
    places = {_place(folder, name): record for name, record in needed.items()}
    require_room(places, folder, spare=SPARE_BYTES)
    with Assembly(places, progress) as assembly:
        if delta:
            assembly.reuse(_seeds(store, bundle.head.manifest, places.values()))
        assembly.fetch(bundle)
        assembly.verify()
    return assembly.tally


def _install(manifest: Manifest, info: ModelInfo, store: Store, folder: Path, needed: Files) -> Package:
    """Check all that came, then move it to its places, the package first. Raises `PackageError`, `BundleError`."""
    target = store.path_for(manifest.name, info.target)
    package = _checked(manifest, info, folder) if MANIFEST_NAME in needed else Package.open(target)
    came = {
        name: folder / ADAPTERS_FOLDER / name
        for name in _adapter_names(manifest.files)
        if f"{ADAPTERS_FOLDER}/{name}/{adapters.MANIFEST_NAME}" in needed
    }
    for name, source in came.items():
        open_adapter(package, name, source)
    if MANIFEST_NAME in needed:
        with store.locked():
            check_replaceable(target)
            durable.publish_folder(package.path, target)
    package = Package.open(target)
    for name, source in came.items():
        AdapterStore(store.home).adopt(package, name, source)
    return package


def _installed(manifest: Manifest, info: ModelInfo, target: Path, home: Path, names: Collection[str]) -> set[str]:
    """Names of the bundle's files that are in the store already, each of its parts whole or not at all."""
    found: set[str] = set()
    with contextlib.suppress(NotFound, PackageError):
        package = Package.open(target)
        if package.digest == info.digest and not package.check():
            found.update({MANIFEST_NAME, *package.manifest.files})
    for name in names:
        with contextlib.suppress(NotFound, PackageError):
            adapter = AdapterStore(home).get(manifest.name, name)
            folder = f"{ADAPTERS_FOLDER}/{name}"
            if adapter.digest == manifest.files[f"{folder}/{adapters.MANIFEST_NAME}"].sha256:
                adapter.load()
                found.update({f"{folder}/{adapters.MANIFEST_NAME}", f"{folder}/{adapters.WEIGHTS_NAME}"})
    return found


def _adapter_names(files: Files) -> list[str]:
    """Names of the adapters in a bundle. Raises `BundleError` for files that belong to nothing."""
    names: dict[str, set[str]] = {}
    for path in files:
        folder, _, rest = path.partition("/")
        if not rest:
            continue
        name, _, file = rest.partition("/")
        if folder != ADAPTERS_FOLDER or file not in (adapters.MANIFEST_NAME, adapters.WEIGHTS_NAME):
            raise BundleError(f"{path} has no place in a model", "it was written by something else")
        names.setdefault(name, set()).add(file)
    if any(len(found) != 2 for found in names.values()):
        raise BundleError("the bundle has half an adapter", "it was written by something else")
    return sorted(names)


def _seeds(store: Store, manifest: Manifest, places: Collection[FileRecord]) -> Iterator[Seed]:
    """Files of installed models that are called as one of the bundle's; those of the same model first."""
    for name in sorted(store.names(), key=lambda name: not name.startswith(manifest.name)):
        for file, record in sorted(manifest.files.items()):
            path = store.path_for(name) / file
            if record in places and path.is_file():
                yield Seed(path, record)


def _checked(manifest: Manifest, info: ModelInfo, folder: Path) -> Package:
    """The package that came, if it is what the bundle says. Raises `PackageError`, `BundleError`."""
    package = Package.open(folder / _PACKAGE)
    records = {name: record.sha256 for name, record in manifest.files.items() if "/" not in name}
    expected = {name: entry.sha256 for name, entry in package.manifest.files.items()} | {MANIFEST_NAME: package.digest}
    told = (manifest.name, info.target, info.digest, info.licence)
    if records != expected or told != (package.name, package.manifest.target, package.digest, package.manifest.licence):
        raise BundleError("the bundle is not of the package that it holds", "it was written by something else")
    return package


def _set_aliases(home: Path, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """Give other names that nobody has yet; those that mean something here keep it."""
    file, taken = AliasFile(home), Store(home).names()
    known = file.all()
    for alias, target in sorted(aliases.items()):
        if alias not in known and alias not in taken:
            file.set(alias, target)
    return tuple(sorted(alias for alias, target in aliases.items() if file.all().get(alias) == target))


def _place(folder: Path, name: str) -> Path:
    return folder / name if "/" in name else folder / _PACKAGE / name


@contextlib.contextmanager
def _incoming(home: Path, name: str, digest: str) -> Iterator[Path]:
    """The folder in which this bundle comes together, locked."""
    parent = home / INCOMING_FOLDER
    folder = parent / f"{name}-{digest[:_DIGEST_LETTERS]}"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(durable.locked_folder(folder, wait=False))
        except BlockingIOError:
            raise InvalidInput(f"{name} is being imported already", "wait until that is done") from None
        yield folder


def _forget_others(folder: Path) -> None:
    """Remove what was begun and given up of other versions of the model."""
    name, _, digest = folder.name.rpartition("-")
    for path in folder.parent.glob(f"{name}-{'?' * len(digest)}"):
        if path.is_dir():
            with contextlib.suppress(BlockingIOError), durable.locked_folder(path, wait=False):
                shutil.rmtree(path)
