"""Tensors as a checkpoint stores them: plain floats, or one matrix in several packed parts.

`quantization_config` of config.json says which; each method that edgeai reads has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeai.errors import UnsupportedModel
from edgeai.sources.checkpoint_entries import Arrays, Entry, plain
from edgeai.sources.checkpoint_files import CONFIG

HINTS: Mapping[str, str] = {}


def entries(arrays: Arrays, config: Mapping[str, Any]) -> dict[str, Entry]:
    """All tensors of a checkpoint, packed parts put together.

    Raises `UnsupportedModel` that names the method or the tensor for a form that edgeai does not read.
    """
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
        raise UnsupportedModel(f"{CONFIG}: weights quantized by {method!r} are not supported", "use the float model")
    return {name: plain(name, array) for name, array in arrays.items()}
