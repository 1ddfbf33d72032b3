"""What the readers of quantized checkpoints share: parts of a matrix put together, settings checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.checkpoint_entries import Arrays
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE
from edgeai.sources.safetensors import StoredArray

Parts = Mapping[str, StoredArray]
FLOAT_MODEL = "use the float model, and let edgeai quantize it"


def collect(
    arrays: Arrays, suffixes: Sequence[str], *, optional: Sequence[str] = ()
) -> tuple[dict[str, dict[str, StoredArray]], dict[str, StoredArray]]:
    """Parts by module, for every module that has the first of `suffixes`; and the arrays that are no part.

    Raises `SourceError` that names the part which a module lacks.
    """
    marked = {name.removesuffix(f".{suffixes[0]}") for name in arrays if name.endswith(f".{suffixes[0]}")}
    modules: dict[str, dict[str, StoredArray]] = {}
    rest: dict[str, StoredArray] = {}
    for name, array in arrays.items():
        module, _, suffix = name.rpartition(".")
        if module in marked and suffix in suffixes:
            modules.setdefault(module, {})[suffix] = array
        else:
            rest[name] = array
    for module, parts in modules.items():
        for suffix in suffixes:
            if suffix not in parts and suffix not in optional:
                raise SourceError(f"tensor '{module}.{suffix}' is missing", INCOMPLETE)
    return modules, rest


def integer(settings: Mapping[str, Any], *keys: str) -> int:
    """The first of `keys` that the settings have, a whole number. Raises `SourceError`."""
    value = next((settings[key] for key in keys if settings.get(key) is not None), None)
    if type(value) is not int:
        raise SourceError(f"{CONFIG}: {keys[0]} of quantization_config is {value!r}, no whole number", INCOMPLETE)
    return value


def require(condition: bool, what: str, hint: str = FLOAT_MODEL) -> None:
    """Raise `UnsupportedModel` unless the condition holds."""
    if not condition:
        raise UnsupportedModel(f"{CONFIG}: {what} is not supported", hint)
