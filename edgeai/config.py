"""Where things are kept, and the settings of a server: frozen, typed, checked once when they are made."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import platformdirs

from edgeai.errors import InvalidInput

HOME_VARIABLE = "EDGEAI_HOME"
CACHE_VARIABLE = "EDGEAI_CACHE"
FOREVER = math.inf
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"(-?)(\d+(?:\.\d+)?|(?:{_PART.pattern})+)")
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


def size_or_other(value: Any) -> Any:
    """For schemas: bytes where `value` is text, as `parse_size` reads it; anything else as it is. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


def parse_duration(value: Any) -> float:
    """Seconds: a number of them, or what Go and Ollama write, such as 5m or 1h30m. Below zero means `FOREVER`.

    Raises `InvalidInput`.
    """
    mistake = InvalidInput(f"{value!r} is not a duration", "write 300, 5m or 1h30m; 0 for none, -1 for ever")
    if isinstance(value, str):
        seconds = _seconds(value.strip(), mistake)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value):
        seconds = float(value)
    else:
        raise mistake
    return FOREVER if seconds < 0 else seconds


def _seconds(text: str, mistake: InvalidInput) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise mistake
    parts = _PART.findall(found[2])
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(found[2])
    return -seconds if found[1] else seconds


CheckMode = Literal["always", "changed", "never"]
MOST = 2**63 - 1


def setting(
    default: Any, name: str | None = None, *, least: float | None = None, most: float = MOST, live: bool = False
) -> Any:
    """A field of `ServerSettings`.

    `name` is what files, variables and flags call it where that is not the field's name. Numbers lie between `least`
    and `most`. What is `live` changes in a running server when it is told to read its configuration again.
    """
    return field(default=default, metadata={"name": name, "least": least, "most": most, "live": live})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to serve. None leaves a choice to what the device and the model allow. Raises `InvalidInput`.

    `edgeai.settings` reads it from files, variables and flags.
    """

    host: str = "127.0.0.1"
    port: int = setting(8080, least=0, most=65535)
    ollama_port: int | None = setting(None, least=0, most=65535)  # listen there too, for software that knows no other
    name: str | None = None  # of the board, for people and as NAME.local; None: the machine's own
    announce: bool | None = None  # whether the network is told; None: where others can reach the server
    model: str | None = None  # a store name or package folder; None: every installed model
    also: tuple[str, ...] = ()  # more of them
    pin: tuple[str, ...] = setting((), live=True)  # models that are loaded at the start and never unloaded
    preload: tuple[str, ...] = ()  # models that are loaded at the start
    alias: tuple[str, ...] = setting((), live=True)  # other names for models, each written ALIAS=MODEL
    keep_alive_seconds: float = setting(FOREVER, "keep_alive", live=True)  # in memory after the last request
    max_context: int | None = setting(None, "context", least=1)  # tokens of one sequence
    kv_budget_bytes: int | None = setting(None, "kv_budget", least=1)  # for the KV cache of all sequences
    kv_type: Literal["float32", "int8"] | None = None  # of the KV cache
    prompt_weights: bool = True  # int8 ones that prompts are read with, for packages that have them
    kv_disk_bytes: int | None = setting(None, "kv_disk", least=0)  # for prompts that survive a restart; 0: none
    kv_daily_bytes: int = setting(2 << 30, "kv_writes", least=0)  # most of them to write in a day: SD cards wear
    threads: int | None = setting(None, least=1)
    max_rows: int | None = setting(None, "rows", least=1, most=1024)  # sequences that run at once
    max_queue: int = setting(64, least=0, most=1_000_000)  # requests that may wait; one more is refused
    max_queue_per_client: int | None = setting(None, least=0, most=1_000_000)  # of one client; None: half of all
    latency_ms: float = setting(250.0, least=1, most=3_600_000)  # between an answer's tokens, while prompts are read
    profile: bool = True  # whether settings that were tuned for this machine are used
    check: CheckMode = "changed"  # when a child process tries the settings before the server uses them
    auth: bool | None = None  # whether clients need an API key; None: unless only this machine can reach the server
    tls: Literal["off", "self-signed"] = "off"
    tls_cert: str | None = None  # files in PEM: a certificate with its chain, and its key; they win over `tls`
    tls_key: str | None = None
    hostname: tuple[str, ...] = setting((), live=True)  # names that clients may call the server by, beside its own
    cors_origin: tuple[str, ...] = setting((), live=True)  # origins of web pages elsewhere that may ask; "*": all
    requests_per_minute: int | None = setting(None, least=1, live=True)  # of a key or address without its own limit
    tokens_per_day: int | None = setting(None, least=1, live=True)
    max_connections: int = setting(256, least=1, most=100_000, live=True)
    connections_per_address: int = setting(64, least=1, most=100_000, live=True)  # not of this machine itself
    head_seconds: float = setting(20.0, least=0.1, most=3600, live=True)  # for a request's head to come
    body_seconds: float = setting(60.0, least=0.1, most=3600, live=True)  # for its body, beside a second per KiB
    stall_seconds: float = setting(60.0, least=0.1, most=3600, live=True)  # for a client that does not read on
    power: bool = True  # whether work is thinned out for heat, a weak supply or the last of a battery
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", live=True)
    log_format: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, least = getattr(self, entry.name), entry.metadata.get("least")
            if value is not None and least is not None:
                _between(entry.name, value, least, entry.metadata["most"])


def _between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{name} is {value}, but must be between {least} and {most}", param=name)
