"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on q, k and v, and windows in the upper layers if enabled."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.config import DecoderConfig, read_config, sliding_layers, with_windows
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward", "with_upper_windows"]

DEFAULTS = {"sliding_window": 4096, "max_window_layers": 28}


def configure(keys: Keys) -> DecoderConfig:
    return replace(with_upper_windows(keys, read_config(keys)), qkv_bias=True)


def with_upper_windows(keys: Keys, config: DecoderConfig) -> DecoderConfig:
    """Windows from layer `max_window_layers` on, or where `layer_types` says, if `use_sliding_window` enables them."""
    if not keys.flag("use_sliding_window"):
        return config
    keys = keys.with_defaults(DEFAULTS)
    first = 0 if keys.values["max_window_layers"] == 0 else keys.number("max_window_layers", int)
    pattern = [layer >= first for layer in range(config.num_layers)]
    return with_windows(config, keys.optional("sliding_window", int), sliding_layers(keys, pattern))
