"""Mixtures of experts in GGUF files: stacks of matrices come back one by one, under transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.weights import BlockTensor
from tests.fixtures.architectures import BASE, Case
from tests.fixtures.gguf_converter import converted
from tests.fixtures.gguf_files import GGUF, Entry, random_blocks

Write = Callable[[GGUF], Path]
EXPERTS = 4
CONFIG: dict[str, Any] = {
    **BASE,
    "model_type": "qwen3_moe",
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "tie_word_embeddings": False,
    "norm_topk_prob": True,
}
SHAPES = {"gate": (32, 64), "up": (32, 64), "down": (64, 32)}
CASE = Case("qwen3_moe", "untied", CONFIG)


def checkpoint() -> dict[str, np.ndarray]:
    """Names and shapes of transformers' Qwen3MoeForCausalLM."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (96, 64), "lm_head.weight": (96, 64)}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.input_layernorm.weight": (64,), f"{at}.post_attention_layernorm.weight": (64,)}
        shapes |= {f"{at}.self_attn.{part}_proj.weight": (rows, 64) for part, rows in (("q", 64), ("k", 32), ("v", 32))}
        shapes |= {f"{at}.self_attn.o_proj.weight": (64, 64), f"{at}.mlp.gate.weight": (EXPERTS, 64)}
        shapes |= {f"{at}.self_attn.{part}_norm.weight": (16,) for part in "qk"}
        for part, shape in SHAPES.items():
            shapes |= {f"{at}.mlp.experts.{expert}.{part}_proj.weight": shape for expert in range(EXPERTS)}
    shapes["model.norm.weight"] = (64,)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def stacked(tensors: dict[str, np.ndarray]) -> GGUF:
    """The checkpoint as a file, the experts of a layer in one tensor with three axes."""
    return converted(CASE, tensors)


def test_experts_come_back_one_by_one(write_gguf: Write) -> None:
    tensors = checkpoint()
    source = GGUFSource(write_gguf(stacked(tensors)))
    assert {info.name: info.shape for info in source.tensors} == {name: v.shape for name, v in tensors.items()}
    for name, values in tensors.items():
        assert np.array_equal(source.load(name).dequantize(), values), name


def test_configuration(write_gguf: Write) -> None:
    config = GGUFSource(write_gguf(stacked(checkpoint()))).config
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    common = CONFIG.keys() & config.keys() - {"pad_token_id", "bos_token_id", "eos_token_id"}
    assert {key: config[key] for key in common} == {key: CONFIG[key] for key in common}
    assert common >= {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "head_dim"}


def test_quantized_experts_stay_on_their_grid(write_gguf: Write) -> None:
    file = stacked(checkpoint())
    entry = file.tensor("blk.1.ffn_gate_exps.weight")
    entry.encoding, entry.data = "Q4_1", random_blocks(entry.shape, "Q4_1", np.random.default_rng(1))
    source = GGUFSource(write_gguf(file))
    expected = dequantize(np.frombuffer(entry.data, np.uint8).reshape(EXPERTS, 32, 40), gguf.GGMLQuantizationType.Q4_1)
    for expert in range(EXPERTS):
        tensor = source.load(f"model.layers.1.mlp.experts.{expert}.gate_proj.weight")
        assert isinstance(tensor, BlockTensor)
        assert np.array_equal(tensor.dequantize(), expected[expert])


def test_what_does_not_fit_is_refused(write_gguf: Write) -> None:
    fewer = stacked(checkpoint())
    fewer.metadata["qwen3moe.expert_count"] = 3
    with pytest.raises(SourceError, match=r"has shape \(4, 64\); the configuration says \(3, 64\)"):
        GGUFSource(write_gguf(fewer))
    flat = stacked(checkpoint())
    entry = flat.tensor("blk.0.ffn_up_exps.weight")
    flat.tensors[flat.tensors.index(entry)] = Entry(entry.name, (128, 64), "F32", entry.data)
    with pytest.raises(SourceError, match=r"has shape \(128, 64\); the configuration says \(4, 32, 64\)"):
        GGUFSource(write_gguf(flat))
    missing = stacked(checkpoint())
    missing.drop("blk.1.ffn_down_exps.weight")
    with pytest.raises(SourceError, match=r"'blk\.1\.ffn_down_exps\.weight' is missing"):
        GGUFSource(write_gguf(missing))
    shared = stacked(checkpoint())
    shared.metadata["qwen3moe.expert_shared_count"] = 1
    with pytest.raises(UnsupportedModel, match="a mixture with shared experts"):
        GGUFSource(write_gguf(shared))
    without = stacked(checkpoint())
    del without.metadata["qwen3moe.expert_used_count"]
    with pytest.raises(SourceError, match=r"'qwen3moe\.expert_used_count' is missing"):
        GGUFSource(write_gguf(without))
