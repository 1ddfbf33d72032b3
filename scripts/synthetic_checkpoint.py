"""Checkpoints of random weights in the shapes of known models: their speech is noise, only time and memory count.

They are written tensor by tensor, so that the writing process stays small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeai.sources.gguf import GGUFSource

LAYERS_IN_SHARD = 7
COMMON = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": True}
QWEN = COMMON | {"model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768}
QWEN |= {"rope_theta": 1000000.0, "use_sliding_window": False}


def shaped(base: Mapping[str, Any], hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    """A config with these sizes."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return dict(base) | sizes | {"num_attention_heads": heads, "num_key_value_heads": kv_heads}


LLAMA = COMMON | {
    "model_type": "llama",
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": shaped(QWEN, 896, 4864, 24, 14, 2),
    "llama-3.2-1b": shaped(LLAMA, 2048, 8192, 16, 32, 8),
    "qwen2.5-1.5b": shaped(QWEN, 1536, 8960, 28, 12, 2),
}


def layer_shapes(config: Mapping[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    hidden, inner, at = config["hidden_size"], config["intermediate_size"], f"model.layers.{layer}"
    key = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}.input_layernorm.weight": (hidden,),
        f"{at}.self_attn.q_proj.weight": (hidden, hidden),
        f"{at}.self_attn.k_proj.weight": (key, hidden),
        f"{at}.self_attn.v_proj.weight": (key, hidden),
        f"{at}.self_attn.o_proj.weight": (hidden, hidden),
        f"{at}.post_attention_layernorm.weight": (hidden,),
        f"{at}.mlp.gate_proj.weight": (inner, hidden),
        f"{at}.mlp.up_proj.weight": (inner, hidden),
        f"{at}.mlp.down_proj.weight": (hidden, inner),
    }
    if config["model_type"] == "qwen2":
        shapes |= {
            f"{at}.self_attn.{name}_proj.bias": (size,) for name, size in (("q", hidden), ("k", key), ("v", key))
        }
    return shapes


def shards(config: Mapping[str, Any]) -> Iterator[dict[str, tuple[int, ...]]]:
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    for start in range(0, layers, LAYERS_IN_SHARD):
        shapes = {}
        for layer in range(start, min(start + LAYERS_IN_SHARD, layers)):
            shapes |= layer_shapes(config, layer)
        yield shapes
    yield {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    header, start = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for count in pieces(math.prod(shape)):
                values = rng.standard_normal(count, np.float32) * np.float32(0.02)
                if "norm" in name:
                    values += 1
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def pieces(count: int, at_once: int = 1 << 22) -> Iterator[int]:
    for start in range(0, count, at_once):
        yield min(at_once, count - start)


def write_checkpoint(folder: Path, config: Mapping[str, Any], tokenizer: GGUFSource) -> int:
    """Writes it with that model's tokenizer, whose tokens are fewer; returns the bytes of the weights."""
    folder.mkdir(parents=True)
    rng, index = np.random.default_rng(0), {}
    parts = list(shards(config))
    for number, shapes in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_shard(folder / name, shapes, rng)
        index |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(dict(config)))
    files = tokenizer.tokenizer()
    (folder / "tokenizer.json").write_bytes(files.tokenizer_json)
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(files.special_tokens)))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
