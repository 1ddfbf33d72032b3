"""Qwen3 (Yang et al. 2025): Llama with a norm over every head of q and k before the rotation."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys
from edgeai.architectures.qwen2 import with_upper_windows

DEFAULTS = {"head_dim": 128}


def configure(keys: Keys) -> DecoderConfig:
    keys, bias = keys.with_defaults(DEFAULTS), keys.flag("attention_bias")
    return replace(with_upper_windows(keys, read_config(keys)), qkv_bias=bias, output_bias=bias)


def forward(blocks: Blocks[Value]) -> None:
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        normed = blocks.norm(f"{at}.input_layernorm")
        blocks.add(blocks.attention(normed, layer, f"{at}.self_attn", norm="head"))
        blocks.add(blocks.gated_mlp(blocks.norm(f"{at}.post_attention_layernorm"), f"{at}.mlp"))
    blocks.head("model.norm")
