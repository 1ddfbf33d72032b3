"""The metadata of a GGUF file as the entries of a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_architectures import architecture
from edgeai.sources.gguf_format import RawTensor
from edgeai.sources.gguf_metadata import INCOMPLETE, LARGEST, Contents, Metadata
from edgeai.sources.gguf_rope import rope_scaling
from edgeai.sources.gguf_rules import Architecture, ConfigKey


def describe(file: Contents) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of the file and its config.json."""
    plain = Metadata(file)
    kind = architecture(plain.require("general.architecture", str), plain.name)
    metadata = Metadata(file, kind.word)
    _refuse(metadata, kind)
    config: dict[str, Any] = {
        "architectures": [kind.class_name],
        "model_type": kind.model_type,
        "vocab_size": _embedding(file).shape[0],
        **{entry.name: _number(metadata, entry) for entry in kind.config},
        **kind.constants,
    }
    _check_layers(file, config["num_hidden_layers"])
    config |= _attention(metadata, kind, config)
    config |= kind.computed(metadata, config)
    config |= {
        "rope_scaling": rope_scaling(file, metadata, config),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **{name: f"blk.0.{tensor}" in file.tensors for name, tensor in kind.biases.items()},
    }
    return kind, config | _token_ids(metadata)


def dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that `TensorRule.shape` names."""
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    return {
        "vocab": config["vocab_size"],
        "hidden": config["hidden_size"],
        "inner": config["intermediate_size"],
        "twice_inner": 2 * config["intermediate_size"],
        "head": config["head_dim"],
        "queries": queries,
        "keys": keys,
        "all_heads": queries + 2 * keys,
        "experts": config.get("num_experts", 0),
        "expert_inner": config.get("moe_intermediate_size", 0),
    }


def _refuse(metadata: Metadata, kind: Architecture) -> None:
    for key, what in kind.refused_keys.items():
        if metadata.values.get(metadata.full(f".{key}")):
            raise UnsupportedModel(f"{metadata.name} is {what}, which is not supported", "use another model")


def _check_layers(file: Contents, layers: int) -> None:
    """Refuse a number of layers that cannot be true before anything is made for each of them."""
    if layers > len(file.tensors):
        raise SourceError(f"{file.path.name}: {layers} layers, but only {len(file.tensors)} tensors", INCOMPLETE)


def _embedding(file: Contents) -> RawTensor:
    tensor = file.tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise SourceError(f"{file.path.name}: the matrix 'token_embd.weight' is missing", INCOMPLETE)
    return tensor


def _number(metadata: Metadata, entry: ConfigKey) -> int | float | None:
    key = f".{entry.key}"
    if not metadata.has(key) and entry.default is not None:
        return entry.default
    if entry.optional and not metadata.get(key, entry.kind, entry.kind(0)):
        return None
    number: int | float = metadata.positive(key, entry.kind)
    return number


def _attention(metadata: Metadata, kind: Architecture, config: Mapping[str, Any]) -> dict[str, int]:
    """Head counts and size; GGUF leaves out what follows from the rest."""
    heads = config["num_attention_heads"]
    kv_heads = metadata.get(".attention.head_count_kv", int, heads)
    if not 1 <= kv_heads <= heads or heads % kv_heads:
        raise SourceError(f"{metadata.name}: {heads} heads cannot share {kv_heads} key-value heads", INCOMPLETE)
    size = metadata.get(".attention.key_length", int, config["hidden_size"] // heads)
    rotated = metadata.get(".rope.dimension_count", int, size)
    valued = metadata.get(".attention.value_length", int, size)
    if not 2 <= size <= LARGEST or size % 2:
        raise SourceError(f"{metadata.name}: heads of {size} values are not possible", INCOMPLETE)
    possible = 2 <= rotated <= size and rotated % 2 == 0 if kind.partial_rotation else rotated == size
    if not possible or valued != size:
        raise UnsupportedModel(
            f"{metadata.name}: heads of {size} keys, {valued} values and {rotated} rotated dimensions",
            "only heads that are rotated as a whole are supported",
        )
    return {"num_key_value_heads": kv_heads, "head_dim": size}


def _token_ids(metadata: Metadata) -> dict[str, int | None]:
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id", int),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id", int),
    }
