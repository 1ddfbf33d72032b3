"""Gemma 2 (Gemma Team 2024): norms before and after each block, soft caps on scores and logits, GeGLU.

Every other layer attends to a window only, first the one with a window. Norms multiply with 1 + weight, embeddings with
the square root of the hidden size.
"""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, QKNorm, Value
from edgeai.architectures.config import DecoderConfig, read_config, sliding_layers, with_windows
from edgeai.architectures.keys import Keys

DEFAULTS = {
    "head_dim": 256,
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    config = with_gemma_norms(keys, read_config(keys))
    pattern = [layer % 2 == 0 for layer in range(config.num_layers)]
    return with_windows(config, keys.optional("sliding_window", int), sliding_layers(keys, pattern))


def with_gemma_norms(keys: Keys, config: DecoderConfig) -> DecoderConfig:
    """What Gemma 2 and 3 have in common beyond windows."""
    bias = keys.flag("attention_bias")
    return replace(
        config,
        norm_offset=1.0,
        qkv_bias=bias,
        output_bias=bias,
        embedding_multiplier=config.hidden_size**0.5,
        attention_scale=keys.number("query_pre_attn_scalar", float) ** -0.5,
        attention_softcap=keys.optional("attn_logit_softcapping", float),
        logit_softcap=keys.optional("final_logit_softcapping", float),
    )


def forward(blocks: Blocks[Value], qk_norm: QKNorm | None = None) -> None:
    blocks.embed()
    for layer in range(blocks.config.num_layers):
        at = f"model.layers.{layer}"
        attended = blocks.attention(blocks.norm(f"{at}.input_layernorm"), layer, f"{at}.self_attn", norm=qk_norm)
        blocks.add(blocks.norm(f"{at}.post_attention_layernorm", attended))
        product = blocks.gated_mlp(blocks.norm(f"{at}.pre_feedforward_layernorm"), f"{at}.mlp")
        blocks.add(blocks.norm(f"{at}.post_feedforward_layernorm", product))
    blocks.head("model.norm")
