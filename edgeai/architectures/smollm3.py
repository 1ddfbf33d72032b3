"""SmolLM3 (Hugging Face 2025): Llama in which every fourth layer has no position embedding (NoPE, Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.config import DecoderConfig, read_config, sliding_layers, with_windows
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward"]

DEFAULTS = {
    "tie_word_embeddings": True,
    "rope_theta": 2000000.0,
    "num_key_value_heads": 4,
    "no_rope_layer_interval": 4,
}


def configure(keys: Keys) -> DecoderConfig:
    keys, bias = keys.with_defaults(DEFAULTS), keys.flag("attention_bias")
    config = replace(read_config(keys), qkv_bias=bias, output_bias=bias, mlp_bias=keys.flag("mlp_bias"))
    rotates = keys.series("no_rope_layers", config.num_layers)  # despite its name, 1 where a layer rotates
    if rotates is None:
        every = keys.number("no_rope_layer_interval", int)
        rotates = [(layer + 1) % every != 0 for layer in range(config.num_layers)]
    pairs = zip(config.layers, rotates, strict=True)
    config = replace(config, layers=tuple(layer if rotate else replace(layer, rope=None) for layer, rotate in pairs))
    if not keys.flag("use_sliding_window"):
        return config
    sliding = sliding_layers(keys, [not rotate for rotate in rotates])
    return with_windows(config, keys.optional("sliding_window", int), sliding)
