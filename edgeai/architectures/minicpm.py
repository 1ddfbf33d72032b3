"""MiniCPM and MiniCPM4 (Hu et al. 2024), the dense models: Llama with muP's multipliers.

Its published code scales embeddings by `scale_emb`, what a block adds by `scale_depth` / sqrt(layers), and the input of
the head by `dim_model_base` / hidden size.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward"]

DEFAULTS = {"tie_word_embeddings": True}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    keys.refuse("num_experts", "use a dense MiniCPM model")
    keys.refuse("sparse_config", "use a MiniCPM model with dense attention")
    config, bias = read_config(keys), keys.flag("attention_bias")
    depth = keys.number("scale_depth", float, 1.0)
    return replace(
        config,
        qkv_bias=bias,
        output_bias=bias,
        embedding_multiplier=keys.number("scale_emb", float, 1.0),
        residual_multiplier=depth / math.sqrt(config.num_layers),
        logit_multiplier=keys.number("dim_model_base", float, 1.0) / config.hidden_size,
    )
