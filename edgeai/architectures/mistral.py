"""Mistral (Jiang et al. 2023): Llama with a sliding window in all layers, which later versions switch off."""

from __future__ import annotations

from edgeai.architectures.config import DecoderConfig, read_config, with_windows
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward"]

DEFAULTS = {"sliding_window": 4096, "num_key_value_heads": 8}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    config = read_config(keys)
    return with_windows(config, keys.optional("sliding_window", int), [True] * config.num_layers)
