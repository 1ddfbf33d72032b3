"""ERNIE 4.5 (Baidu 2025), the dense models: Llama that rotates neighbouring values."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward"]

DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    bias = keys.flag("use_bias")
    return replace(read_config(keys, interleaved=True), qkv_bias=bias, output_bias=bias, mlp_bias=bias)
