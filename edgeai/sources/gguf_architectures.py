"""What GGUF calls things, per architecture, as tables: metadata keys and tensor names beside their Hugging Face words.

A further architecture is a further `Architecture` in `ARCHITECTURES`. Names after gguf-py's `constants.py` and
`tensor_mapping.py`; which rows are interleaved and what is added to norms after llama.cpp's converters; shapes are
given in the symbols of `gguf_config.dimensions` and checked against the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeai.errors import UnsupportedModel
from edgeai.sources import gguf_extras as extras
from edgeai.sources.gguf_rules import Architecture, ConfigKey, TensorRule

Rules = dict[str, TensorRule]

HEADS, KV_HEADS = "num_attention_heads", "num_key_value_heads"
MIXTURE = {"expert_count": "a mixture of experts"}
BIASES = {"attention_bias": "attn_q.bias"}
MLP_BIASES = {**BIASES, "mlp_bias": "ffn_gate.bias"}
SILU = {"hidden_act": "silu"}

COMMON = (
    ConfigKey("hidden_size", "embedding_length"),
    ConfigKey("intermediate_size", "feed_forward_length"),
    ConfigKey("num_hidden_layers", "block_count"),
    ConfigKey("num_attention_heads", "attention.head_count"),
    ConfigKey("max_position_embeddings", "context_length"),
    ConfigKey("rms_norm_eps", "attention.layer_norm_rms_epsilon", float),
    ConfigKey("rope_theta", "rope.freq_base", float, 10000.0),
)
WINDOW = ConfigKey("sliding_window", "attention.sliding_window", optional=True)
FINAL_CAP = ConfigKey("final_logit_softcapping", "final_logit_softcapping", float, optional=True)


def _norm(name: str, size: str = "hidden", offset: float = 0.0) -> TensorRule:
    return TensorRule(f"{name}.weight", (size,), offset=offset)


def _linear(gguf: str, name: str, shape: tuple[str, str], rotary_heads: str = "") -> Rules:
    return {
        f"{gguf}.weight": TensorRule(f"{name}.weight", shape, rotary_heads),
        f"{gguf}.bias": TensorRule(f"{name}.bias", shape[:1], rotary_heads, optional=True),
    }


def _whole(offset: float = 0.0) -> Rules:
    return {
        "token_embd.weight": TensorRule("model.embed_tokens.weight", ("vocab", "hidden")),
        "output_norm.weight": _norm("model.norm", offset=offset),
        "output.weight": TensorRule("lm_head.weight", ("vocab", "hidden"), optional=True),
    }


def _attention(*, interleaved: bool = False) -> Rules:
    """`interleaved`: the converter has reordered the rows of q and k (`LlamaModel.permute`)."""
    return {
        **_linear("attn_q", "self_attn.q_proj", ("queries", "hidden"), HEADS if interleaved else ""),
        **_linear("attn_k", "self_attn.k_proj", ("keys", "hidden"), KV_HEADS if interleaved else ""),
        **_linear("attn_v", "self_attn.v_proj", ("keys", "hidden")),
        **_linear("attn_output", "self_attn.o_proj", ("hidden", "queries")),
    }


def _head_norms(offset: float = 0.0) -> Rules:
    return {f"attn_{part}_norm.weight": _norm(f"self_attn.{part}_norm", "head", offset) for part in "qk"}


MLP = {
    **_linear("ffn_gate", "mlp.gate_proj", ("inner", "hidden")),
    **_linear("ffn_up", "mlp.up_proj", ("inner", "hidden")),
    **_linear("ffn_down", "mlp.down_proj", ("hidden", "inner")),
}
FUSED_MLP = {
    "ffn_up.weight": TensorRule("mlp.gate_up_proj.weight", ("twice_inner", "hidden")),
    "ffn_down.weight": TensorRule("mlp.down_proj.weight", ("hidden", "inner")),
}
EXPERTS = {
    "ffn_gate_inp.weight": TensorRule("mlp.gate.weight", ("experts", "hidden")),
    **{
        f"ffn_{part}_exps.weight": TensorRule(f"mlp.experts.{{expert}}.{part}_proj.weight", shape)
        for part, shape in (
            ("gate", ("expert_inner", "hidden")),
            ("up", ("expert_inner", "hidden")),
            ("down", ("hidden", "expert_inner")),
        )
    },
}
NORMS_BEFORE = {
    "attn_norm.weight": _norm("input_layernorm"),
    "ffn_norm.weight": _norm("post_attention_layernorm"),
}
# Gemma's converters add the 1 that its norms add to their weights.
GEMMA_NORMS = {
    "attn_norm.weight": _norm("input_layernorm", offset=1.0),
    "post_attention_norm.weight": _norm("post_attention_layernorm", offset=1.0),
    "ffn_norm.weight": _norm("pre_feedforward_layernorm", offset=1.0),
    "post_ffw_norm.weight": _norm("post_feedforward_layernorm", offset=1.0),
}

LLAMA = Architecture(
    word="llama",
    model_type="llama",
    class_name="LlamaForCausalLM",
    constants=SILU,
    config=COMMON,
    tensors=_whole(),
    layer_tensors={**NORMS_BEFORE, **_attention(interleaved=True), **MLP},
    refused_keys=MIXTURE,
    biases=MLP_BIASES,
)
QWEN2 = replace(
    LLAMA,
    word="qwen2",
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    layer_tensors={**NORMS_BEFORE, **_attention(), **MLP},
    biases={},
)
QWEN3 = replace(
    QWEN2,
    word="qwen3",
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    layer_tensors={**QWEN2.layer_tensors, **_head_norms()},
    biases=BIASES,
)
QWEN3_MOE = replace(
    QWEN3,
    word="qwen3moe",
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    constants={**SILU, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    config=(
        *COMMON,
        ConfigKey("num_experts", "expert_count"),
        ConfigKey("num_experts_per_tok", "expert_used_count"),
        ConfigKey("moe_intermediate_size", "expert_feed_forward_length"),
    ),
    layer_tensors={**NORMS_BEFORE, **_attention(), **_head_norms(), **EXPERTS},
    refused_keys={"expert_shared_count": "a mixture with shared experts"},
)
GEMMA2 = Architecture(
    word="gemma2",
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    constants={"hidden_activation": "gelu_pytorch_tanh"},
    config=(
        *COMMON,
        WINDOW,
        FINAL_CAP,
        ConfigKey("attn_logit_softcapping", "attn_logit_softcapping", float, optional=True),
    ),
    tensors=_whole(offset=1.0),
    layer_tensors={**GEMMA_NORMS, **_attention(), **MLP},
    biases=BIASES,
    computed=extras.gemma2,
)
GEMMA3 = replace(
    GEMMA2,
    word="gemma3",
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    config=(*COMMON, WINDOW, FINAL_CAP, ConfigKey("rope_local_base_freq", "rope.freq_base_swa", float, 10000.0)),
    layer_tensors={**GEMMA2.layer_tensors, **_head_norms(offset=1.0)},
    computed=extras.gemma3,
)
PHI3 = Architecture(
    word="phi3",
    model_type="phi3",
    class_name="Phi3ForCausalLM",
    constants=SILU,
    config=(
        *COMMON,
        WINDOW,
        ConfigKey("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ),
    tensors=_whole(),
    layer_tensors={
        **NORMS_BEFORE,
        "attn_qkv.weight": TensorRule("self_attn.qkv_proj.weight", ("all_heads", "hidden")),
        "attn_output.weight": TensorRule("self_attn.o_proj.weight", ("hidden", "queries")),
        **FUSED_MLP,
    },
    refused_keys=MIXTURE,
    partial_rotation=True,
    computed=extras.partial_rotation,
)
SMOLLM3 = replace(
    LLAMA,
    word="smollm3",
    model_type="smollm3",
    class_name="SmolLM3ForCausalLM",
    constants={**SILU, "no_rope_layer_interval": 4, "use_sliding_window": False},
)
MINICPM = replace(
    LLAMA,
    word="minicpm",
    model_type="minicpm",
    class_name="MiniCPMForCausalLM",
    config=(*COMMON, ConfigKey("scale_emb", "embedding_scale", float, 12.0)),
    biases=BIASES,
    computed=extras.minicpm,
)
# ERNIE and GLM rotate neighbouring values in Hugging Face's code as well, so that their rows stay in order.
ERNIE = replace(
    LLAMA,
    word="ernie4_5",
    model_type="ernie4_5",
    class_name="Ernie4_5ForCausalLM",
    layer_tensors={**NORMS_BEFORE, **_attention(), **MLP},
    biases={"use_bias": "attn_output.bias"},
)
GLM4 = Architecture(
    word="glm4",
    model_type="glm4",
    class_name="Glm4ForCausalLM",
    constants=SILU,
    config=COMMON,
    tensors=_whole(),
    layer_tensors={
        "attn_norm.weight": _norm("input_layernorm"),
        "post_attention_norm.weight": _norm("post_self_attn_layernorm"),
        "ffn_norm.weight": _norm("post_attention_layernorm"),
        "post_ffw_norm.weight": _norm("post_mlp_layernorm"),
        **_attention(),
        **FUSED_MLP,
    },
    refused_keys={
        "nextn_predict_layers": "a GLM with layers for multi-token prediction",
        "rope.dimension_sections": "the text part of a GLM that sees",
    },
    biases=BIASES,
    partial_rotation=True,
    computed=extras.partial_rotation,
)
GRANITE = replace(
    LLAMA,
    word="granite",
    model_type="granite",
    class_name="GraniteForCausalLM",
    config=(
        *COMMON,
        ConfigKey("attention_multiplier", "attention.scale", float, 1.0),
        ConfigKey("embedding_multiplier", "embedding_scale", float, 1.0),
        ConfigKey("residual_multiplier", "residual_scale", float, 1.0),
        ConfigKey("logits_scaling", "logit_scale", float, 1.0),
    ),
    refused_keys={**MIXTURE, "deepstack_mapping": "the text part of a Granite that sees"},
    computed=extras.granite,
)
OLMO2 = replace(
    LLAMA,
    word="olmo2",
    model_type="olmo2",
    class_name="Olmo2ForCausalLM",
    layer_tensors={
        **_attention(),
        "attn_q_norm.weight": _norm("self_attn.q_norm", "queries"),
        "attn_k_norm.weight": _norm("self_attn.k_norm", "keys"),
        "post_attention_norm.weight": _norm("post_attention_layernorm"),
        "post_ffw_norm.weight": _norm("post_feedforward_layernorm"),
        **MLP,
    },
    biases=BIASES,
    computed=extras.olmo2,
)

_ALL = (LLAMA, QWEN2, QWEN3, QWEN3_MOE, GEMMA2, GEMMA3, PHI3, SMOLLM3, MINICPM, ERNIE, GLM4, GRANITE, OLMO2)
ARCHITECTURES: Mapping[str, Architecture] = {entry.word: entry for entry in _ALL}


def architecture(name: str, file_name: str) -> Architecture:
    """The table of one architecture by GGUF's word for it; `UnsupportedModel` names those there are."""
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedModel(f"{file_name}: architecture {name!r} is not supported", f"supported: {known}")
    return ARCHITECTURES[name]
