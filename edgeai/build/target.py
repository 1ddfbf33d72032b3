"""What is asked to be built: a recipe by name or file, or bare weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import edgeai
from edgeai.build.licence_check import contradiction, require_accepted, stated_licence
from edgeai.errors import InvalidInput, NotFound
from edgeai.package.manifest import Origin
from edgeai.progress import Progress
from edgeai.recipe import Licence, Recipe, RepositoryRef, find_recipe
from edgeai.sources.checkpoint_files import title_of
from edgeai.sources.open import open_first, open_path
from edgeai.sources.repository import open_snapshot, parse_spec, snapshots_for, wanted_of
from edgeai.sources.weights import Provenance, WeightSource


@dataclass(frozen=True)
class Target:
    """Opened weights and everything a recipe says about them, or would say."""

    name: str
    source: WeightSource
    recipe: Recipe | None
    licence: Licence
    licence_accepted: bool = False  # by the user, because it is not an open one


def open_target(spec: str, cache: Path, progress: Progress, *, accept_licence: bool = False) -> Target:
    """Open what `spec` names: a `.toml` file, weights on disk, a hub's repository, or one of edgeai's recipes.

    Weights whose licence is not open need `accept_licence`, before anything of them is downloaded. Raises `NotFound`,
    `InvalidInput`, `LicenceNotAccepted`, `SourceError` or `OutOfDisk`.
    """
    if (entry := parse_spec(spec)) is not None:
        return _from_repository(entry, cache, progress, accept_licence)
    path = Path(spec)
    if path.suffix == ".toml":
        return _from_recipe(Recipe.load(path), path.parent, cache, progress, accept_licence)
    if path.exists():
        source = open_path(path)
        licence = stated_licence(source.provenance.licence)
        accepted = require_accepted(licence, accept_licence, path.name, kind="path")
        return Target(name_from(path), source, None, licence, accepted)
    if path.suffix or path.name != spec:
        raise NotFound(f"there is no file or folder {spec}", "check the path")
    return _from_recipe(find_recipe(spec), None, cache, progress, accept_licence)


def _from_repository(entry: RepositoryRef, cache: Path, progress: Progress, accept_licence: bool) -> Target:
    snapshots, wanted = snapshots_for(entry, cache, progress), wanted_of(entry)
    plan = snapshots.plan(wanted)
    licence = stated_licence(plan.listing.licence)
    accepted = require_accepted(licence, accept_licence, entry.repo, kind=snapshots.kind)
    source = open_snapshot(snapshots.fetch(wanted, plan))
    return Target(name_of(entry.repo.rpartition("/")[2]), source, None, licence, accepted)


def _from_recipe(recipe: Recipe, folder: Path | None, cache: Path, progress: Progress, accept_licence: bool) -> Target:
    """Opened by a recipe, whose word on the licence counts; where the source says otherwise, that is told."""
    if recipe.licence is not None:
        require_accepted(recipe.licence, accept_licence, recipe.name, kind="recipe")
    source = open_first(recipe.sources, cache, folder, progress)
    origin = source.provenance
    licence = recipe.licence or stated_licence(origin.licence)
    accepted = require_accepted(licence, accept_licence, recipe.name, kind=origin.kind)
    if recipe.licence and (difference := contradiction(recipe.licence, origin.licence, origin.location)):
        progress(difference)
        accepted |= require_accepted(stated_licence(origin.licence), accept_licence, origin.location, kind=origin.kind)
    return Target(recipe.name, source, recipe, licence, accepted)


def name_from(path: Path) -> str:
    """A package name from a file's or folder's; a checkpoint's file is called as its folder."""
    if path.is_file() and path.suffix != ".safetensors":
        return name_of(path.stem)
    folder = path.absolute().parent if path.is_file() else path
    return name_of(title_of(folder).rpartition("/")[2])


def name_of(title: str) -> str:
    """A package name from any title. Raises `InvalidInput` where nothing of it can stay."""
    name = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")
    if not name:
        raise InvalidInput(f"no package name can be made from {title!r}", "rename it, or write a recipe")
    return name[:100]


def origin_of(provenance: Provenance) -> Origin:
    """Where a package's weights came from and what built it, for its manifest."""
    return Origin(
        kind=provenance.kind,
        location=provenance.location,
        revision=provenance.revision,
        sha256=dict(provenance.sha256),
        licence=provenance.licence,
        builder=f"edgeai {edgeai.__version__}",
    )
