"""OLMo 2 (OLMo Team 2024): norms after each block instead of before, and over all of q and of k."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys

DEFAULTS = {"rms_norm_eps": 1e-5}


def configure(keys: Keys) -> DecoderConfig:
    keys, bias = keys.with_defaults(DEFAULTS), keys.flag("attention_bias")
    return replace(read_config(keys), qkv_bias=bias, output_bias=bias)


def forward(blocks: Blocks[Value]) -> None:
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        attended = blocks.attention(blocks.stream(), layer, f"{at}.self_attn", norm="projection")
        blocks.add(blocks.norm(f"{at}.post_attention_layernorm", attended))
        product = blocks.gated_mlp(blocks.stream(), f"{at}.mlp")
        blocks.add(blocks.norm(f"{at}.post_feedforward_layernorm", product))
    blocks.head("model.norm")
