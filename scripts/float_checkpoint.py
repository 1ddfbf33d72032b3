"""A bfloat16 checkpoint of SmolLM2-135M-Instruct, to try quantizers on: `float_checkpoint.py GGUF FOLDER [--gguf-too]`.

No float language model lies on a package index, and re-quantizing weights that already lie on a 4-bit grid says little.
So every matrix of the GGUF file is dequantized and moved by uniform noise of half its own quantization step, up or down
(seeded), which gives a model that still speaks and whose weights lie on no grid. Beside the folder, `float.gguf` holds
the same values in float32 for llama.cpp.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np

from edgeai.sources.gguf import GGUFSource, hf_row_order
from edgeai.sources.weights import BlockTensor, TensorInfo

SEED = 1


def noised(tensor: BlockTensor, rng: np.random.Generator) -> np.ndarray:
    values = tensor.dequantize()
    blocks = values.reshape(len(values), -1, 32)
    if tensor.bits == 8:
        step = np.abs(blocks).max(-1, keepdims=True) / 127
    else:
        step = (blocks.max(-1, keepdims=True) - blocks.min(-1, keepdims=True)) / 15
    return (blocks + rng.uniform(-0.5, 0.5, blocks.shape) * step).reshape(values.shape).astype(np.float32)


def row_order(source: GGUFSource, info: TensorInfo) -> np.ndarray:
    """For each row in Hugging Face's order, its number in the file's, which differ for queries and keys."""
    part, rows = info.name.split(".")[-2], info.shape[0]
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(part)
    return np.arange(rows) if heads is None else hf_row_order(rows, source.config[heads])


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to nearest even."""
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, start = {}, 0
    for name, bits in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [start, start + bits.nbytes]}
        start += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for bits in tensors.values():
            file.write(bits.tobytes())


def write_folder(source: GGUFSource, folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for info in source.tensors:
        tensor, order = source.load(info.name), row_order(source, info)
        if isinstance(tensor, BlockTensor):  # moved in the file's order of rows
            values = noised(tensor.take(np.argsort(order)), rng)[order]
        else:
            values = tensor.dequantize()
        tensors[info.name] = to_bfloat16(values)
    write_safetensors(folder / "model.safetensors", tensors)
    files = source.tokenizer()
    (folder / "config.json").write_text(json.dumps(dict(source.config)))
    (folder / "tokenizer.json").write_bytes(files.tokenizer_json)
    settings = {"chat_template": files.chat_template, **files.special_tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tensors


def write_gguf(original: Path, source: GGUFSource, tensors: dict[str, np.ndarray], path: Path) -> None:
    """The original's metadata with float32 tensors, in llama.cpp's names and row order."""
    reader = gguf.GGUFReader(original)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub)
    names = dict(zip(tensors, [tensor.name for tensor in reader.tensors], strict=True))
    for name, bits in tensors.items():
        values = (bits.astype(np.uint32) << 16).view(np.float32)
        writer.add_tensor(names[name], values[np.argsort(row_order(source, TensorInfo(name, values.shape, "F32")))])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    source = GGUFSource(args.gguf)
    tensors = write_folder(source, args.folder)
    write_gguf(args.gguf, source, tensors, args.folder.with_name("float.gguf"))


if __name__ == "__main__":
    main()
