"""Llama (Touvron et al. 2023) and the many models with its shape, such as SmolLM2 and DeepSeek's distills.

Pre-norm blocks of grouped-query attention and SwiGLU; RMS norms; rotary positions, scaled or not; seldom biases.
"""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.keys import Keys


def configure(keys: Keys) -> DecoderConfig:
    bias = keys.flag("attention_bias")
    return replace(read_config(keys), qkv_bias=bias, output_bias=bias, mlp_bias=keys.flag("mlp_bias"))


def forward(blocks: Blocks[Value]) -> None:
    """The whole decoder. Other architectures that differ from Llama in their configuration only use it too."""
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        blocks.add(blocks.attention(blocks.norm(f"{at}.input_layernorm"), layer, f"{at}.self_attn"))
        blocks.add(blocks.gated_mlp(blocks.norm(f"{at}.post_attention_layernorm"), f"{at}.mlp"))
    blocks.head("model.norm")
