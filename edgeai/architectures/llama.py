"""Llama (Touvron et al. 2023) and the many models with its shape, such as SmolLM2.

Pre-norm blocks of grouped-query attention and SwiGLU; RMS norms; rotary positions; no biases.
"""

from __future__ import annotations

from edgeai.architectures.decoder import DecoderBuilder
from edgeai.architectures.reference import ReferenceDecoder


def build(decoder: DecoderBuilder) -> None:
    """Write the whole decoder into the builder's graph."""
    config = decoder.config
    hidden, embedding = decoder.embed()
    branch: str | None = None  # what the previous block adds to the residual stream, not added yet
    for layer in range(config.num_layers):
        at = f"model.layers.{layer}"
        normed, hidden = decoder.norm(hidden, f"{at}.input_layernorm.weight", skip=branch)
        projections = [f"{at}.self_attn.{part}_proj.weight" for part in "qkv"]
        attended = decoder.attention(normed, layer, projections)
        if layer == config.num_layers - 1:  # past the last attention, only positions whose logits are wanted matter
            attended = decoder.select(attended, config.query_size)
            hidden = decoder.select(hidden, config.hidden_size)
        output = f"{at}.self_attn.o_proj.weight"
        branch = decoder.project(attended, output, config.hidden_size, config.query_size)
        normed, hidden = decoder.norm(hidden, f"{at}.post_attention_layernorm.weight", skip=branch)
        branch = decoder.gated_mlp(normed, layer, *(f"{at}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")))
    normed, _ = decoder.norm(hidden, "model.norm.weight", skip=branch)
    decoder.logits(normed, embedding)


def reference(decoder: ReferenceDecoder) -> None:
    """The same computation on plain numpy, from which `build` is checked."""
    decoder.embed()
    for layer in range(decoder.config.num_layers):
        at = f"model.layers.{layer}"
        normed = decoder.norm(decoder.hidden, f"{at}.input_layernorm.weight")
        attended = decoder.attention(normed, *(f"{at}.self_attn.{part}_proj.weight" for part in "qkv"))
        decoder.hidden = decoder.hidden + decoder.project(attended, f"{at}.self_attn.o_proj.weight")
        normed = decoder.norm(decoder.hidden, f"{at}.post_attention_layernorm.weight")
        decoder.hidden = decoder.hidden + decoder.gated_mlp(normed, f"{at}.mlp")
    decoder.hidden = decoder.norm(decoder.hidden, "model.norm.weight")
