"""Where things are kept, and the settings of a server: frozen, typed, checked once when they are made."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from edgeai.errors import InvalidInput

HOME_VARIABLE = "EDGEAI_HOME"
CACHE_VARIABLE = "EDGEAI_CACHE"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def home_dir() -> Path:
    """The folder of installed packages: $EDGEAI_HOME, or `edgeai` under the user's data folder."""
    return _folder(HOME_VARIABLE, platformdirs.user_data_path("edgeai"))


def cache_dir() -> Path:
    """The folder of downloads: $EDGEAI_CACHE, or `edgeai` under the user's cache folder. It may be deleted any time."""
    return _folder(CACHE_VARIABLE, platformdirs.user_cache_path("edgeai"))


def _folder(variable: str, default: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser().absolute() if chosen else default


def parse_size(text: str) -> int:
    """Bytes from what people write: 512M, 1.5G, 300MiB. Raises `InvalidInput`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", text.strip().upper())
    if not match or match[2] not in _UNITS:
        raise InvalidInput(f"{text!r} is not a size", "write for example 512M, 1.5G or 300MiB")
    return int(float(match[1]) * _UNITS[match[2]])


CheckMode = Literal["always", "changed", "never"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to serve. None leaves a choice to what the device and the model allow. Raises `InvalidInput`."""

    host: str = "127.0.0.1"
    port: int = 8080
    model: str | None = None  # a store name or package folder; None: every installed model
    also: tuple[str, ...] = ()  # more of them, such as an embedding model beside a language model
    max_context: int | None = None  # tokens of one sequence
    kv_budget_bytes: int | None = None  # for the KV cache of all sequences
    kv_type: Literal["float32", "int8"] | None = None  # of the KV cache
    kv_disk_bytes: int | None = None  # for computed prompts that survive a restart; 0: none
    kv_daily_bytes: int = 2 << 30  # most of them to write in a day: SD cards wear
    threads: int | None = None
    max_rows: int | None = None  # sequences that run at once
    max_queue: int = 64  # requests that may wait; one more is refused
    profile: bool = True  # whether settings that were tuned for this machine are used
    check: CheckMode = "changed"  # when a child process tries the settings before the server uses them

    def __post_init__(self) -> None:
        _between("port", self.port, 0, 65535)
        _between("max_rows", 1 if self.max_rows is None else self.max_rows, 1, 1024)
        _between("max_queue", self.max_queue, 0, 1_000_000)
        _between("kv_disk_bytes", self.kv_disk_bytes or 0, 0, 2**63 - 1)
        _between("kv_daily_bytes", self.kv_daily_bytes, 0, 2**63 - 1)
        for name in ("max_context", "kv_budget_bytes", "threads"):
            value = getattr(self, name)
            if value is not None:
                _between(name, value, 1, 2**63 - 1)


def _between(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{name} is {value}, but must be between {least} and {most}", param=name)
