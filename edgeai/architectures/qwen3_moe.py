"""Qwen3's mixtures of experts (Yang et al. 2025), such as Qwen3-30B-A3B: Qwen3 with experts in the place of MLPs.

Which layers have experts: every `decoder_sparse_step`-th, but for those in `mlp_only_layers`.
"""

from __future__ import annotations

from dataclasses import replace

from edgeai.architectures.blocks import Blocks, Value
from edgeai.architectures.config import DecoderConfig, Mixture, read_config, with_windows
from edgeai.architectures.keys import Keys
from edgeai.errors import SourceError

DEFAULTS = {
    "num_key_value_heads": 4,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "mlp_only_layers": (),
    "sliding_window": 4096,
}


def configure(keys: Keys) -> DecoderConfig:
    keys, bias = keys.with_defaults(DEFAULTS), keys.flag("attention_bias")
    config = read_config(keys)
    if keys.flag("use_sliding_window"):  # in all layers, unlike Qwen3's
        config = with_windows(config, keys.optional("sliding_window", int), [True] * config.num_layers)
    mixture, sparse = _mixture(keys), _sparse_layers(keys, config.num_layers)
    layers = tuple(
        replace(layer, mixture=mixture if number in sparse else None) for number, layer in enumerate(config.layers)
    )
    return replace(config, layers=layers, qkv_bias=bias, output_bias=bias)


def forward(blocks: Blocks[Value]) -> None:
    blocks.embed()
    for layer, own in enumerate(blocks.config.layers):
        at = f"model.layers.{layer}"
        normed = blocks.norm(f"{at}.input_layernorm")
        blocks.add(blocks.attention(normed, layer, f"{at}.self_attn", norm="head"))
        normed = blocks.norm(f"{at}.post_attention_layernorm")
        if own.mixture is None:
            blocks.add(blocks.gated_mlp(normed, f"{at}.mlp"))
        else:
            blocks.add(blocks.mixture(normed, layer, f"{at}.mlp"))
    blocks.head("model.norm")


def _mixture(keys: Keys) -> Mixture:
    experts, chosen = keys.number("num_experts", int), keys.number("num_experts_per_tok", int)
    if chosen > experts:
        raise SourceError(f"config: {chosen} experts are to be chosen out of {experts}")
    return Mixture(experts, chosen, keys.number("moe_intermediate_size", int), keys.flag("norm_topk_prob"))


def _sparse_layers(keys: Keys, layers: int) -> set[int]:
    step, dense = keys.number("decoder_sparse_step", int), keys.values["mlp_only_layers"] or ()
    if not isinstance(dense, list | tuple) or not all(isinstance(layer, int) for layer in dense):
        raise SourceError(f"config: mlp_only_layers is {dense!r}, not a list of layers")
    return {layer for layer in range(layers) if (layer + 1) % step == 0 and layer not in dense}
