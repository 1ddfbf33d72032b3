"""Rotary scaling as GGUF keeps it, as the `rope_scaling` of a config.json.

Linear and YaRN scaling are metadata keys. Llama 3's and LongRoPE's are tensors: what each frequency is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_blocks import DECODERS
from edgeai.sources.gguf_metadata import INCOMPLETE, Contents, Metadata, shortest

FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
FACTOR_TENSORS = (FREQUENCIES, LONG, SHORT)  # part of the configuration, not weights
YARN_KEYS = {
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
    "attention_factor": "yarn_attn_factor",
}
AT = ".rope.scaling."

Config = Mapping[str, Any]


def rope_scaling(file: Contents, metadata: Metadata, config: Config) -> dict[str, Any] | None:
    """The scaling, or None; `config` has the sizes already. Raises `UnsupportedModel` for a kind that is not known."""
    method = metadata.get(AT + "type", str, "linear" if metadata.has(".rope.scale_linear") else "none")
    if FREQUENCIES in file.tensors:
        return _llama3(file, config)
    if LONG in file.tensors or SHORT in file.tensors:
        return _longrope(file, metadata, config)
    if method not in METHODS:
        raise UnsupportedModel(
            f"{metadata.name}: rotary scaling {method!r} is not supported", "supported: linear, yarn, longrope, llama3"
        )
    return METHODS[method](metadata, config)


def _linear(metadata: Metadata, _config: Config) -> dict[str, Any] | None:
    old = ".rope.scale_linear"  # of files before 2024
    factor = metadata.positive(old if metadata.has(old) else AT + "factor", float)
    return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _yarn(metadata: Metadata, _config: Config) -> dict[str, Any]:
    given = {
        name: shortest(metadata.require(AT + key, float)) for name, key in YARN_KEYS.items() if metadata.has(AT + key)
    }
    return {
        "rope_type": "yarn",
        "factor": metadata.positive(AT + "factor", float),
        "original_max_position_embeddings": metadata.positive(AT + "original_context_length", int),
        **given,
    }


def _nothing(_metadata: Metadata, _config: Config) -> None:
    """No scaling, or one that is a tensor which this file does not have."""


METHODS: Mapping[str, Callable[[Metadata, Config], dict[str, Any] | None]] = {
    "none": _nothing,
    "linear": _linear,
    "yarn": _yarn,
    "longrope": _nothing,
}


def _longrope(file: Contents, metadata: Metadata, config: Config) -> dict[str, Any]:
    """Factors for texts up to the original context, and for longer ones."""
    long, short = (_factors(file, name, config) for name in (LONG, SHORT))
    trained = config["max_position_embeddings"]
    return {
        "rope_type": "longrope",
        "short_factor": [shortest(value) for value in short.tolist()],
        "long_factor": [shortest(value) for value in long.tolist()],
        "original_max_position_embeddings": metadata.get(AT + "original_context_length", int, trained),
    }


def _llama3(file: Contents, config: Config) -> dict[str, Any]:
    """Find the parameters behind the per-frequency factors that GGUF stores instead of them, and check they are these.

    All published Llama 3.x checkpoints share every parameter but `factor`, which is the largest of the factors; the
    context that the model was first trained for is looked for all the same.
    """
    stored = _factors(file, FREQUENCIES, config)
    for context in (8192, *(2**power for power in range(6, 21))):
        scaling = {
            "rope_type": "llama3",
            "factor": shortest(float(stored.max())),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": context,
        }
        if np.allclose(stored, llama3_factors(config["rope_theta"], config["head_dim"], scaling), rtol=1e-4):
            return scaling
    raise UnsupportedModel(f"{file.path.name}: {FREQUENCIES} is not the scaling of Llama 3", "")


def llama3_factors(theta: float, head_dim: int, scaling: Mapping[str, Any]) -> NDArray[np.float64]:
    """What each rotary frequency is divided by [head_dim / 2] (Llama 3.1; transformers' `modeling_rope_utils`)."""
    frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = context * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _factors(file: Contents, name: str, config: Config) -> NDArray[np.float32]:
    """One number for each rotated pair, positive."""
    pairs = int(config["head_dim"] * config.get("partial_rotary_factor", 1.0)) // 2
    tensor = file.tensors.get(name)
    if tensor is None or tensor.encoding != "F32" or tensor.shape != (pairs,):
        found = "missing" if tensor is None else f"{tensor.encoding} {tensor.shape}"
        raise SourceError(f"{file.path.name}: {name} is {found}, not F32 ({pairs},)", INCOMPLETE)
    factors = DECODERS["F32"](file.raw(tensor), tensor.shape).dequantize()
    if not np.isfinite(factors).all() or factors.min() <= 0:
        raise SourceError(f"{file.path.name}: {name} holds values that are not positive numbers", INCOMPLETE)
    return factors
