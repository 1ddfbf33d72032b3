"""Repositories of the hubs as sources: from a recipe's entry, or from the command line's hub:OWNER/NAME@REVISION."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from edgeai.errors import InvalidInput, SourceError
from edgeai.progress import Progress
from edgeai.recipe import HubRef, ModelScopeRef, RepositoryRef, describe_errors
from edgeai.sources.folder import FolderSource
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_split import single_model
from edgeai.sources.hub import HuggingFace
from edgeai.sources.listing import COMMIT, Hub, Wanted
from edgeai.sources.modelscope import DEFAULT_BRANCH, ModelScope
from edgeai.sources.snapshot import Snapshot, SnapshotCache
from edgeai.sources.weights import WeightSource

HUBS: Mapping[str, Callable[[], Hub]] = {"hub": HuggingFace, "modelscope": ModelScope}
PREFIXES: Mapping[str, tuple[type[HubRef | ModelScopeRef], str, str]] = {
    "hub:": (HubRef, "hub", "main"),
    "ms:": (ModelScopeRef, "modelscope", DEFAULT_BRANCH),
}
USAGE = "write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME@REVISION:FILE,FILE (ms: for ModelScope)"


def parse_spec(spec: str) -> HubRef | ModelScopeRef | None:
    """What hub:OWNER/NAME@REVISION:FILES means; None for anything that does not begin so. Raises `InvalidInput`."""
    prefix = next((prefix for prefix in PREFIXES if spec.startswith(prefix)), None)
    if prefix is None:
        return None
    model, kind, branch = PREFIXES[prefix]
    address, _, files = spec.removeprefix(prefix).partition(":")
    repo, _, revision = address.partition("@")
    revision = revision or branch
    names = [name for name in files.split(",") if name]
    document = {"kind": kind, "repo": repo, "revision": revision, "files": names, "pinned": bool(_commit(revision))}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(f"{spec!r} names no repository: {describe_errors(error)}", USAGE) from None


def snapshots_for(entry: RepositoryRef, cache: Path, progress: Progress) -> SnapshotCache:
    """The cache of the hub that `entry` is of."""
    kind = "hub" if isinstance(entry, HubRef) else "modelscope"
    return SnapshotCache(HUBS[kind](), cache, progress)


def wanted_of(entry: RepositoryRef) -> Wanted:
    """A recipe's entry as the snapshot cache takes it."""
    return Wanted(entry.repo, entry.revision, entry.files, entry.sha256)


def open_snapshot(snapshot: Snapshot) -> WeightSource:
    """The model in a snapshot. Raises `SourceError` where it is none, or more than one."""
    ggufs = sorted(name for name in snapshot.provenance.sha256 if name.lower().endswith(".gguf"))
    model = single_model([snapshot.folder / name for name in ggufs])
    if model is not None:
        return GGUFSource(model, provenance=snapshot.provenance)
    if ggufs:
        raise SourceError(f"{snapshot.provenance.location}: {len(ggufs)} GGUF files: {', '.join(ggufs)}", "name one")
    return FolderSource(snapshot.folder, provenance=snapshot.provenance)


def _commit(revision: str) -> bool:
    return COMMIT.fullmatch(revision) is not None
