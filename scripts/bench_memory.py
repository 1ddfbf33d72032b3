"""Writes a synthetic checkpoint of Qwen2.5-1.5B's shape and builds it: `bench_memory.py TOKENIZER.gguf WORK`.

The checkpoint is written tensor by tensor, so that this process stays small; the build runs in a process of its own,
whose time and peak memory are printed. Its speech is noise, so only time and memory say anything.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeai.sources.gguf import GGUFSource

CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
LAYERS_IN_SHARD = 7


def layer_shapes(layer: int) -> dict[str, tuple[int, ...]]:
    hidden, inner, at = 1536, 8960, f"model.layers.{layer}"
    return {
        f"{at}.input_layernorm.weight": (hidden,),
        f"{at}.self_attn.q_proj.weight": (hidden, hidden),
        f"{at}.self_attn.q_proj.bias": (hidden,),
        f"{at}.self_attn.k_proj.weight": (256, hidden),
        f"{at}.self_attn.k_proj.bias": (256,),
        f"{at}.self_attn.v_proj.weight": (256, hidden),
        f"{at}.self_attn.v_proj.bias": (256,),
        f"{at}.self_attn.o_proj.weight": (hidden, hidden),
        f"{at}.post_attention_layernorm.weight": (hidden,),
        f"{at}.mlp.gate_proj.weight": (inner, hidden),
        f"{at}.mlp.up_proj.weight": (inner, hidden),
        f"{at}.mlp.down_proj.weight": (hidden, inner),
    }


def shards(layers: int) -> Iterator[dict[str, tuple[int, ...]]]:
    for start in range(0, layers, LAYERS_IN_SHARD):
        shapes = {}
        for layer in range(start, min(start + LAYERS_IN_SHARD, layers)):
            shapes |= layer_shapes(layer)
        yield shapes
    yield {"model.embed_tokens.weight": (CONFIG["vocab_size"], 1536), "model.norm.weight": (1536,)}


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


def write_checkpoint(folder: Path, layers: int, tokenizer: GGUFSource) -> int:
    """Returns the bytes of the weights."""
    folder.mkdir(parents=True)
    rng, index = np.random.default_rng(0), {}
    parts = list(shards(layers))
    for number, shapes in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_shard(folder / name, shapes, rng)
        index |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    files = tokenizer.tokenizer()
    (folder / "tokenizer.json").write_bytes(files.tokenizer_json)
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(files.special_tokens)))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"])
    parser.add_argument("--scheme", choices=["rtn", "gptq"], default="rtn")
    args = parser.parse_args()
    folder = args.work / "checkpoint"
    size = write_checkpoint(folder, args.layers, GGUFSource(args.gguf))
    print(f"checkpoint: {size / 1e9:.2f} GB in {args.layers} layers", file=sys.stderr)
    options = ["--out", args.work / "package", "--scheme", args.scheme, "--bits", "4", "--json"]
    command = [sys.executable, "-m", "edgeai", "build", folder, *options]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    print("| scheme | checkpoint | package | time | peak memory |\n|---|---|---|---|---|")
    memory, package = report["peak_rss_bytes"] / 1e9, report["size_bytes"] / 1e9
    print(f"| {args.scheme} | {size / 1e9:.2f} GB | {package:.2f} GB | {report['seconds']:.0f} s | {memory:.2f} GB |")


if __name__ == "__main__":
    main()
