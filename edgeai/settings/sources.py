"""Where settings are written: flags, variables and TOML files, read by pydantic-settings; each knows its places."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from edgeai.config import CACHE_VARIABLE, HOME_VARIABLE, home_dir
from edgeai.errors import InvalidInput
from edgeai.settings.schema import PREFIX, schema

FILE_NAME = "edgeai.toml"
SYSTEM_FILE = Path("/etc/edgeai") / FILE_NAME
FILE_VARIABLE = PREFIX + "CONFIG"
# Variables that are no settings of the server: folders, this room's own, what scripts and tests read.
OTHER_VARIABLES = frozenset(
    {HOME_VARIABLE, CACHE_VARIABLE, FILE_VARIABLE, *(PREFIX + word for word in ("BOARD", "KEY", "CERTIFICATE"))}
)
OTHER_PREFIXES = tuple(PREFIX + word for word in ("TEST_", "CI_", "BENCH_", "ARM", "LLAMA_", "GENAI_", "PEERS_", "REF"))


@dataclass(frozen=True, slots=True)
class Source:
    """Values by public name, as they are written. `strict`: whether they have types; `places`: where each stands."""

    values: Mapping[str, Any]
    strict: bool
    places: Mapping[str, str]


def from_flags(flags: Mapping[str, Any]) -> Source:
    """What the command line gave; None is a flag that was not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    return Source(given, True, {name: f"flag --{name.replace('_', '-')}" for name in given})


def from_variables() -> Source:
    """What the environment gives: EDGEAI_ and the setting's name."""
    values = EnvSettingsSource(schema(strict=False))()
    return Source(values, False, {name: f"variable {PREFIX}{name.upper()}" for name in values})


def unknown_variables() -> list[str]:
    """Variables that look like settings but are none."""
    known = {PREFIX + name.upper() for name in schema(strict=False).model_fields} | OTHER_VARIABLES
    found = (name for name in os.environ if name.startswith(PREFIX) and not name.startswith(OTHER_PREFIXES))
    return sorted(set(found) - known)


def from_file(path: Path) -> Source:
    """What a TOML file says. Raises `InvalidInput` for a file that cannot be read or is not TOML."""
    try:
        values = TomlConfigSettingsSource(schema(strict=True), path)()
        text = path.read_text(encoding="utf-8")
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not TOML: {error}", param="config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", param="config") from error
    return Source(values, True, {name: f"{path} line {_line(text, name)}" for name in values})


def _line(text: str, name: str) -> int:
    """The line on which a key or table first stands; a TOML parser does not tell."""
    pattern = rf"^\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*[].=]"
    found = re.search(pattern, text, re.MULTILINE)
    return 1 if found is None else text[: found.end()].count("\n") + 1


def config_files(chosen: Path | None) -> list[Path]:
    """The files to read, later ones win: `chosen` or $EDGEAI_CONFIG alone, or else the system's and the user's."""
    named = chosen or (Path(variable) if (variable := os.environ.get(FILE_VARIABLE)) else None)
    if named is not None:
        if not named.is_file():
            raise InvalidInput(f"there is no configuration file {named}", param="config")
        return [named]
    return [path for path in (SYSTEM_FILE, home_dir() / FILE_NAME) if path.is_file()]
