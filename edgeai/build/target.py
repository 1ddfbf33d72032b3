"""What is asked to be built: a recipe by name or file, or bare weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import InvalidInput, NotFound
from edgeai.package.licence import known_licences
from edgeai.progress import Progress
from edgeai.recipe import Licence, Recipe, find_recipe
from edgeai.sources.open import open_first, open_path, open_source
from edgeai.sources.repository import parse_spec
from edgeai.sources.weights import Provenance, WeightSource

UNKNOWN_LICENCE = "LicenseRef-unknown"


@dataclass(frozen=True)
class Target:
    """Opened weights and everything a recipe says about them, or would say."""

    name: str
    source: WeightSource
    recipe: Recipe | None
    licence: Licence


def open_target(spec: str, cache: Path, progress: Progress) -> Target:
    """Open what `spec` names: a `.toml` file, weights on disk, a hub's repository, or one of edgeai's recipes.

    Raises `NotFound`, `InvalidInput`, `SourceError` or `OutOfDisk`.
    """
    if (entry := parse_spec(spec)) is not None:
        source = open_source(entry, cache, progress=progress)
        return Target(name_of(entry.repo.rpartition("/")[2]), source, None, _licence(None, source.provenance))
    path = Path(spec)
    if path.suffix == ".toml":
        return _from_recipe(Recipe.load(path), path.parent, cache, progress)
    if path.exists():
        source = open_path(path)
        return Target(name_from(path), source, None, _licence(None, source.provenance))
    if path.suffix or path.name != spec:
        raise NotFound(f"there is no file or folder {spec}", "check the path")
    return _from_recipe(find_recipe(spec), None, cache, progress)


def _from_recipe(recipe: Recipe, folder: Path | None, cache: Path, progress: Progress) -> Target:
    source = open_first(recipe.sources, cache, folder, progress)
    return Target(recipe.name, source, recipe, _licence(recipe.licence, source.provenance))


def _licence(stated: Licence | None, provenance: Provenance) -> Licence:
    return stated or Licence(spdx=canonical_spdx(provenance.licence or UNKNOWN_LICENCE))


def canonical_spdx(identifier: str) -> str:
    """Model files write "apache-2.0" or "mit"; SPDX's own spelling where edgeai has that licence's text."""
    return next((name for name in known_licences() if name.lower() == identifier.lower()), identifier)


def name_from(path: Path) -> str:
    """A package name from a file's or folder's."""
    return name_of(path.stem if path.is_file() else path.resolve().name)


def name_of(title: str) -> str:
    """A package name from any title. Raises `InvalidInput` where nothing of it can stay."""
    name = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")
    if not name:
        raise InvalidInput(f"no package name can be made from {title!r}", "rename it, or write a recipe")
    return name[:100]
