"""Logits of transformers' own models in float32, for tests. Runs in an environment with torch and transformers.

usage: transformers_logits.py gguf MODEL.gguf IDS.npy LOGITS.npy
       transformers_logits.py folder CHECKPOINT IDS.npy LOGITS.npy
       transformers_logits.py tiny CHECKPOINT CONFIG.json
       transformers_logits.py batch FOLDER

`IDS.npy` is int64 [..., tokens], `LOGITS.npy` becomes float32 [..., tokens, vocab_size]. `tiny` writes a random
checkpoint of any `model_type`. `batch` does `tiny` and `folder` in one process for every `FOLDER/NAME/theirs.json`: the
checkpoint goes to `FOLDER/NAME/checkpoint`, the logits of `FOLDER/ids.npy` to `FOLDER/NAME/logits.npy`.

It shares no code with edgeai: tensors are dequantized by the package gguf, and rows of the q and k projections are put
back into Hugging Face's order here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def hugging_face_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{kind}"


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection with the halves of each head apart, as Hugging Face has them."""
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def from_gguf(path: Path) -> LlamaForCausalLM:
    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    config = LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base"),
        tie_word_embeddings=not any(tensor.name == "output.weight" for tensor in reader.tensors),
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = unpermuted(weight, heads[part])
        state[hugging_face_name(tensor.name)] = torch.from_numpy(weight.copy())
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=True)
    return model


def write_tiny(folder: Path, config: dict[str, Any]) -> None:
    """A random checkpoint with weights large enough that every part of the model matters."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif parameter.ndim == 1:  # a norm; where it was made of zeros it multiplies with 1 + weight
                offset = 1.0 if not parameter.any() else 0.0
                parameter.uniform_(0.8 - offset, 1.2 - offset)
            else:
                parameter.normal_(0, 2.0 / parameter.shape[1] ** 0.5)
    model.save_pretrained(folder, safe_serialization=True)


def open_folder(folder: Path) -> PreTrainedModel:
    """A checkpoint with plain attention: the fast kinds leave soft caps out."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


@torch.inference_mode()
def logits(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    found = model.float().eval()(torch.from_numpy(np.atleast_2d(ids))).logits
    return found.reshape(*ids.shape, -1).numpy()


def batch(folder: Path) -> None:
    torch.set_num_threads(1)
    ids = np.load(folder / "ids.npy")
    for config in sorted(folder.glob("*/theirs.json")):
        checkpoint = config.with_name("checkpoint")
        write_tiny(checkpoint, json.loads(config.read_text()))
        np.save(config.with_name("logits.npy"), logits(open_folder(checkpoint), ids))


def main(kind: str, model: str, *rest: str) -> None:
    if kind == "tiny":
        write_tiny(Path(model), json.loads(Path(rest[0]).read_text()))
    elif kind == "batch":
        batch(Path(model))
    else:
        loaded = from_gguf(Path(model)) if kind == "gguf" else open_folder(Path(model))
        np.save(rest[1], logits(loaded, np.load(rest[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])
