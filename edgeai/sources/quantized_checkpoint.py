"""Tensors as a checkpoint stores them: plain floats, or one matrix in several packed parts.

`quantization_config` of config.json says which; each method that edgeai reads has a file of its own. Old checkpoints of
GPTQ and AWQ say it in a file beside the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.awq import read_awq
from edgeai.sources.checkpoint_entries import Arrays, Entry, plain
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE, optional_json
from edgeai.sources.compressed_tensors import read_compressed_tensors
from edgeai.sources.gptq import read_gptq
from edgeai.sources.quantized_parts import FLOAT_MODEL

Settings = Mapping[str, Any]
READERS: Mapping[str, Callable[[Arrays, Settings], tuple[dict[str, Entry], Arrays]]] = {
    "gptq": read_gptq,
    "awq": read_awq,
    "compressed-tensors": read_compressed_tensors,
}
SETTINGS_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


def settings_of(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """How the checkpoint was quantized, with its `quant_method`; empty where it was not."""
    stated = config.get("quantization_config")
    if isinstance(stated, Mapping):
        return dict(stated)
    if stated:
        raise SourceError(f"{CONFIG}: quantization_config is {stated!r}, no JSON object", INCOMPLETE)
    for name, method in SETTINGS_FILES.items():
        settings = optional_json(folder / name)
        if settings:
            return {"quant_method": method, **settings}
    return {}


def entries(arrays: Arrays, settings: Settings) -> dict[str, Entry]:
    """All tensors of a checkpoint, packed parts put together.

    Raises `UnsupportedModel` that names the method or the tensor for a form that edgeai does not read.
    """
    packed: dict[str, Entry] = {}
    if settings:
        method = str(settings.get("quant_method", "")).lower()
        if method not in READERS:
            known = ", ".join(READERS)
            raise UnsupportedModel(
                f"{CONFIG}: weights quantized by {method!r} are not supported", f"supported: {known}; or {FLOAT_MODEL}"
            )
        packed, arrays = READERS[method](arrays, settings)
    rest = {name: plain(name, array) for name, array in arrays.items()}
    return {**packed, **rest}
