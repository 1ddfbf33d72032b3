"""Gemma 3 (Gemma Team 2025), the text model: Gemma 2 with QK norms instead of soft caps.

Of six layers one attends to everything, with a rotation of its own for long contexts; the others have a window.
"""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures import gemma2
from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, read_config, sliding_layers, with_windows
from edgeai.architectures.keys import Keys
from edgeai.architectures.rope import read_rope

# Checkpoints with a vision part write nothing of their text part that equals these.
DEFAULTS = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}


def configure(keys: Keys) -> DecoderConfig:
    keys = keys.with_defaults(DEFAULTS)
    keys.refuse("use_bidirectional_attention", "use a model that generates text")
    config = gemma2.with_gemma_norms(keys, read_config(keys))
    every = keys.number("sliding_window_pattern", int)
    sliding = sliding_layers(keys, [bool((layer + 1) % every) for layer in range(config.num_layers)])
    local = read_rope(Keys({"rope_theta": keys.number("rope_local_base_freq", float)}), config.head_size)
    layers = zip(config.layers, sliding, strict=True)
    config = replace(config, layers=tuple(replace(layer, rope=local) if slides else layer for layer, slides in layers))
    return with_windows(config, keys.optional("sliding_window", int), sliding)


def forward(blocks: Blocks[Value]) -> None:
    gemma2.forward(blocks, qk_norm="head")
