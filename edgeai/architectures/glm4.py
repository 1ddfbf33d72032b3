"""GLM-4-0414 (GLM Team 2024): norms before and after each block, half of each head rotated, neighbouring values."""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys

DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1.5625e-07,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    return replace(read_config(keys, interleaved=True, partial=True), qkv_bias=keys.flag("attention_bias"))


def forward(blocks: Blocks[Value]) -> None:
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        attended = blocks.attention(blocks.norm(f"{at}.input_layernorm"), layer, f"{at}.self_attn")
        blocks.add(blocks.norm(f"{at}.post_self_attn_layernorm", attended))
        product = blocks.gated_mlp(blocks.norm(f"{at}.post_attention_layernorm"), f"{at}.mlp", fused=True)
        blocks.add(blocks.norm(f"{at}.post_mlp_layernorm", product))
    blocks.head("model.norm")
