"""One precedence: a flag wins over a variable, a variable over a file, a file over the default."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput
from edgeai.settings.schema import schema, settings_fields
from edgeai.settings.sources import Source, config_files, from_file, from_flags, from_variables, unknown_variables

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings with the place that each was written at, by public name; `warnings` names variables without effect."""

    settings: ServerSettings
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def resolve(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Configuration:
    """The settings in effect with these flags. Raises `InvalidInput` that names every mistake and its place."""
    files = [from_file(path) for path in config_files(config)]
    merged = merge([*files, from_variables(), from_flags(flags or {})])
    warnings = tuple(f"variable {name} is no setting{_nearest(name)}" for name in unknown_variables())
    return Configuration(merged.settings, merged.values, merged.origins, warnings)


def merge(sources: Sequence[Source]) -> Configuration:
    """The settings of several sources; later ones win. Raises `InvalidInput`, also for values that are overridden."""
    values: dict[str, Any] = {name: entry.default for name, entry in settings_fields().items()}
    origins = dict.fromkeys(values, DEFAULT)
    mistakes: list[str] = []
    for source in sources:
        try:
            values |= _checked(source)
        except ValidationError as error:
            mistakes += [_describe(source, problem) for problem in error.errors()]
        origins |= source.places
    if mistakes:
        raise InvalidInput("\n  ".join(["the configuration is wrong:", *mistakes]), "`edgeai config show` lists all")
    return Configuration(_settings(values), values, origins)


def _checked(source: Source) -> dict[str, Any]:
    checked = schema(strict=source.strict)(**source.values)
    return {name: getattr(checked, name) for name in source.values}


def _settings(values: Mapping[str, Any]) -> ServerSettings:
    models = values["model"] or ()
    by_field = {entry.name: values[name] for name, entry in settings_fields().items()}
    return ServerSettings(**by_field | {"model": next(iter(models), None), "also": tuple(models[1:])})


def _describe(source: Source, problem: Any) -> str:
    name = str(problem["loc"][0])
    place = source.places[name]
    if problem["type"] == "extra_forbidden":
        return f"{place}: {name!r} is no setting{_nearest(name)}"
    text = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{place}: {name} is {source.values[name]!r}, but {text}"


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.removeprefix("EDGEAI_").lower(), settings_fields(), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def changes(before: ServerSettings, after: ServerSettings) -> tuple[list[Field[Any]], list[Field[Any]]]:
    """Fields that differ: those that a running server takes over, and those that need a restart."""
    differing = [entry for entry in fields(before) if getattr(before, entry.name) != getattr(after, entry.name)]
    return (
        [entry for entry in differing if entry.metadata.get("live")],
        [entry for entry in differing if not entry.metadata.get("live")],
    )
