"""Entries of config.json that GGUF does not hold as they are: what each architecture has to compute or to know."""

from __future__ import annotations

import math

from edgeai.errors import UnsupportedModel
from edgeai.sources.gguf_metadata import Metadata, shortest
from edgeai.sources.gguf_rules import Config

# Gemma 2 and 3 scale scores by the size of a head; their 27B models by the hidden size for each head.
LARGEST_GEMMA2, LARGEST_GEMMA3 = 46, 62  # layers


def gemma2(_metadata: Metadata, config: Config) -> Config:
    """Every other layer has a window, the first one included."""
    layers = range(config["num_hidden_layers"])
    return {
        "query_pre_attn_scalar": _query_scalar(config, LARGEST_GEMMA2),
        "layer_types": [_layer_type(layer % 2 == 0) for layer in layers],
    }


def gemma3(metadata: Metadata, config: Config) -> Config:
    """Of six layers five have a window, unless the file says otherwise by a period or a list."""
    count = config["num_hidden_layers"]
    pattern = metadata.values.get(metadata.full(".attention.sliding_window_pattern"), 6)
    period = pattern if isinstance(pattern, int) and pattern > 0 else 6
    sliding = [bool((layer + 1) % period) for layer in range(count)]
    if isinstance(pattern, list) and len(pattern) == count:
        sliding = [bool(slides) for slides in pattern]
    if config["sliding_window"] is None:
        sliding = [False] * count
    return {
        "query_pre_attn_scalar": _query_scalar(config, LARGEST_GEMMA3),
        "layer_types": [_layer_type(slides) for slides in sliding],
    }


def granite(metadata: Metadata, _config: Config) -> Config:
    """Granite 4 has models without any rotation, which the file marks in this way."""
    if metadata.get(".rope.scaling.finetuned", bool, True) is False:
        raise UnsupportedModel(f"{metadata.name} is a Granite without rotary positions", "use a Granite 3 model")
    return {}


def minicpm(metadata: Metadata, config: Config) -> Config:
    """Multipliers as the checkpoint states them; files of older converters rely on those of MiniCPM 2B."""
    depth, hidden = config["num_hidden_layers"], config["hidden_size"]
    residual, logits = ".residual_scale", ".logit_scale"
    scale_depth = shortest(metadata.positive(residual, float) * math.sqrt(depth)) if metadata.has(residual) else 1.4
    base = round(hidden / metadata.positive(logits, float)) if metadata.has(logits) else 256
    return {"scale_depth": scale_depth, "dim_model_base": base}


def olmo2(metadata: Metadata, _config: Config) -> Config:
    """OLMo 3 calls itself OLMo 2 here, and adds windows."""
    if metadata.get(".attention.sliding_window", int, 0):
        raise UnsupportedModel(f"{metadata.name} is OLMo 3, which is not supported", "use an OLMo 2 model")
    return {}


def partial_rotation(metadata: Metadata, config: Config) -> Config:
    """The part of each head that is rotated."""
    rotated = metadata.get(".rope.dimension_count", int, config["head_dim"])
    return {"partial_rotary_factor": rotated / config["head_dim"]}


def _query_scalar(config: Config, largest: int) -> int:
    if config["num_hidden_layers"] == largest:
        return int(config["hidden_size"]) // int(config["num_attention_heads"])
    return int(config["head_dim"])


def _layer_type(slides: bool) -> str:
    return "sliding_attention" if slides else "full_attention"
