"""Granite 3 (IBM 2024), the dense models: Llama with multipliers on embeddings, branches, scores and logits."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys
from edgeai.architectures.llama import forward

__all__ = ["configure", "forward"]


def configure(keys: Keys) -> DecoderConfig:
    bias = keys.flag("attention_bias")
    return replace(
        read_config(keys),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=keys.flag("mlp_bias"),
        embedding_multiplier=keys.number("embedding_multiplier", float, 1.0),
        residual_multiplier=keys.number("residual_multiplier", float, 1.0),
        attention_scale=keys.number("attention_multiplier", float, 1.0),
        logit_multiplier=1 / keys.number("logits_scaling", float, 1.0),
    )
