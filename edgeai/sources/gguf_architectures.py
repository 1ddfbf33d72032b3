"""What GGUF calls things, per architecture, as tables: metadata keys and tensor names beside their Hugging Face words.

A further architecture is a further `Architecture` in `ARCHITECTURES`. Names after gguf-py's `constants.py` and
`tensor_mapping.py`; shapes are given in the symbols of `gguf_config.dimensions` and checked against the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeai.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One entry of config.json and the metadata key (without the architecture's prefix) that holds it."""

    name: str
    key: str
    kind: type[int] | type[float] = int
    default: float | None = None  # None: the key has to be there


@dataclass(frozen=True, slots=True)
class TensorRule:
    """Hugging Face name and shape of a tensor.

    `rotary_heads` names the config entry with the number of heads whose rows llama.cpp keeps in interleaved
    order (pairs of a rotation side by side) instead of Hugging Face's (first halves, then second halves).
    """

    name: str
    shape: tuple[str, ...]
    rotary_heads: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that differs between architectures: words, constants of config.json, and what has to be refused."""

    model_type: str
    class_name: str
    constants: Mapping[str, object]
    config: tuple[ConfigKey, ...]
    tensors: Mapping[str, TensorRule]  # of the whole model
    layer_tensors: Mapping[str, TensorRule]  # of each layer, behind "blk.N." and "model.layers.N."
    refused_keys: Mapping[str, str]  # metadata keys which, when not zero, mean a model this table does not describe


def _linear(gguf: str, name: str, shape: tuple[str, str], rotary_heads: str = "") -> dict[str, TensorRule]:
    return {
        f"{gguf}.weight": TensorRule(f"{name}.weight", shape, rotary_heads),
        f"{gguf}.bias": TensorRule(f"{name}.bias", shape[:1], rotary_heads, optional=True),
    }


LLAMA = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    constants={"hidden_act": "silu"},
    config=(
        ConfigKey("hidden_size", "embedding_length"),
        ConfigKey("intermediate_size", "feed_forward_length"),
        ConfigKey("num_hidden_layers", "block_count"),
        ConfigKey("num_attention_heads", "attention.head_count"),
        ConfigKey("max_position_embeddings", "context_length"),
        ConfigKey("rms_norm_eps", "attention.layer_norm_rms_epsilon", float),
        ConfigKey("rope_theta", "rope.freq_base", float, 10000.0),
    ),
    tensors={
        "token_embd.weight": TensorRule("model.embed_tokens.weight", ("vocab", "hidden")),
        "output_norm.weight": TensorRule("model.norm.weight", ("hidden",)),
        "output.weight": TensorRule("lm_head.weight", ("vocab", "hidden"), optional=True),
    },
    layer_tensors={
        "attn_norm.weight": TensorRule("input_layernorm.weight", ("hidden",)),
        **_linear("attn_q", "self_attn.q_proj", ("queries", "hidden"), "num_attention_heads"),
        **_linear("attn_k", "self_attn.k_proj", ("keys", "hidden"), "num_key_value_heads"),
        **_linear("attn_v", "self_attn.v_proj", ("keys", "hidden")),
        **_linear("attn_output", "self_attn.o_proj", ("hidden", "queries")),
        "ffn_norm.weight": TensorRule("post_attention_layernorm.weight", ("hidden",)),
        **_linear("ffn_gate", "mlp.gate_proj", ("inner", "hidden")),
        **_linear("ffn_up", "mlp.up_proj", ("inner", "hidden")),
        **_linear("ffn_down", "mlp.down_proj", ("hidden", "inner")),
    },
    refused_keys={"expert_count": "a mixture of experts"},
)

ARCHITECTURES: Mapping[str, Architecture] = {"llama": LLAMA}


def architecture(name: str, file_name: str) -> Architecture:
    """The table of one architecture by GGUF's word for it; `UnsupportedModel` names those there are."""
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedModel(f"{file_name}: architecture {name!r} is not supported", f"supported: {known}")
    return ARCHITECTURES[name]
