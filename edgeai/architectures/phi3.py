"""Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024): Llama with fused projections and LongRoPE.

Phi-4-mini rotates three quarters of each head only.
"""

from __future__ import annotations

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config, with_windows
from edgeai.architectures.keys import Keys

DEFAULTS = {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    scaling = keys.section("rope_scaling").values
    if scaling.get("type") == "yarn":  # early checkpoints' word for LongRoPE
        keys = Keys({**keys.values, "rope_scaling": {**scaling, "type": "longrope"}}, keys.context, keys.where)
    config = read_config(keys, partial=True)
    return with_windows(config, keys.optional("sliding_window", int), [True] * config.num_layers)


def forward(blocks: Blocks[Value]) -> None:
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        normed = blocks.norm(f"{at}.input_layernorm")
        blocks.add(blocks.attention(normed, layer, f"{at}.self_attn", fused=True))
        blocks.add(blocks.gated_mlp(blocks.norm(f"{at}.post_attention_layernorm"), f"{at}.mlp", fused=True))
    blocks.head("model.norm")
