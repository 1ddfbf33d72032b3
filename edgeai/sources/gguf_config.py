"""The metadata of a GGUF file as the entries of a Hugging Face config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_architectures import Architecture, ConfigKey, architecture
from edgeai.sources.gguf_blocks import DECODERS
from edgeai.sources.gguf_format import GGUFFile, RawTensor

ROPE_FREQUENCIES = "rope_freqs.weight"
LARGEST = 2**31 - 1
INCOMPLETE = "the file was converted incompletely; convert it again or use another one"


class Metadata:
    """Typed access to metadata; what is missing or of a wrong kind is a `SourceError` that names file and key."""

    def __init__(self, file: GGUFFile) -> None:
        self.name = file.path.name
        self.values = file.metadata

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """The value of `key`, or `default` when the file does not have it."""
        value = self.values.get(key, default)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise SourceError(f"{self.name}: metadata key {key!r} is {_shown(value)}, not {kind.__name__}", INCOMPLETE)
        return value

    def require(self, key: str, kind: type[Any]) -> Any:
        """The value of `key`, which has to be there."""
        if key not in self.values:
            raise SourceError(f"{self.name}: metadata key {key!r} is missing", INCOMPLETE)
        return self.get(key, kind)


def describe(file: GGUFFile) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of the file and its config.json."""
    metadata = Metadata(file)
    kind = architecture(metadata.require("general.architecture", str), metadata.name)
    _refuse(metadata, kind)
    config: dict[str, Any] = {
        "architectures": [kind.class_name],
        "model_type": kind.model_type,
        "vocab_size": _embedding(file).shape[0],
        **{entry.name: _number(metadata, kind, entry) for entry in kind.config},
        **kind.constants,
    }
    config |= _attention(metadata, kind, config)
    config |= {
        "rope_scaling": _rope_scaling(file, metadata, kind, config),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    return kind, config | _token_ids(metadata)


def dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that `TensorRule.shape` names."""
    return {
        "vocab": config["vocab_size"],
        "hidden": config["hidden_size"],
        "inner": config["intermediate_size"],
        "queries": config["num_attention_heads"] * config["head_dim"],
        "keys": config["num_key_value_heads"] * config["head_dim"],
    }


def _refuse(metadata: Metadata, kind: Architecture) -> None:
    for key, what in kind.refused_keys.items():
        if metadata.values.get(f"{kind.model_type}.{key}"):
            raise UnsupportedModel(f"{metadata.name} is {what}, which is not supported", "use a dense model")
    if metadata.get("split.count", int, 0) > 1:
        raise UnsupportedModel(
            f"{metadata.name} is one shard of a split file", "merge the shards with llama-gguf-split"
        )


def _embedding(file: GGUFFile) -> RawTensor:
    tensor = file.tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise SourceError(f"{file.path.name}: the matrix 'token_embd.weight' is missing", INCOMPLETE)
    return tensor


def _number(metadata: Metadata, kind: Architecture, entry: ConfigKey) -> int | float:
    key = f"{kind.model_type}.{entry.key}"
    if entry.default is not None and key not in metadata.values:
        return entry.default
    value = metadata.require(key, entry.kind)
    if not 0 < value <= LARGEST:
        raise SourceError(f"{metadata.name}: metadata key {key!r} is {value!r}", INCOMPLETE)
    return _shortest(value) if entry.kind is float else int(value)


def _shortest(value: float) -> float:
    """The decimal that was meant: metadata keeps 1e-5 as the float32 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _attention(metadata: Metadata, kind: Architecture, config: Mapping[str, Any]) -> dict[str, int]:
    """Head counts and size; GGUF leaves out what follows from the rest."""
    prefix = f"{kind.model_type}."
    heads = config["num_attention_heads"]
    kv_heads = metadata.get(prefix + "attention.head_count_kv", int, heads)
    if not 1 <= kv_heads <= heads or heads % kv_heads:
        raise SourceError(f"{metadata.name}: {heads} heads cannot share {kv_heads} key-value heads", INCOMPLETE)
    size = metadata.get(prefix + "attention.key_length", int, config["hidden_size"] // heads)
    rotated = metadata.get(prefix + "rope.dimension_count", int, size)
    valued = metadata.get(prefix + "attention.value_length", int, size)
    if not 2 <= size <= LARGEST or size % 2:
        raise SourceError(f"{metadata.name}: heads of {size} values are not possible", INCOMPLETE)
    if rotated != size or valued != size:
        raise UnsupportedModel(
            f"{metadata.name}: heads of {size} keys, {valued} values and {rotated} rotated dimensions",
            "only heads that are rotated as a whole are supported",
        )
    return {"num_key_value_heads": kv_heads, "head_dim": size}


def _rope_scaling(
    file: GGUFFile, metadata: Metadata, kind: Architecture, config: Mapping[str, Any]
) -> dict[str, Any] | None:
    prefix = f"{kind.model_type}.rope.scaling."
    method = metadata.get(prefix + "type", str, "none")
    if ROPE_FREQUENCIES in file.tensors:
        return _llama3_scaling(file, config)
    if method == "linear":
        return {"rope_type": "linear", "factor": _shortest(metadata.require(prefix + "factor", float))}
    if method != "none":
        raise UnsupportedModel(
            f"{metadata.name}: rotary scaling {method!r} is not supported", "supported: linear, llama3"
        )
    return None


def _llama3_scaling(file: GGUFFile, config: Mapping[str, Any]) -> dict[str, Any]:
    """Find the parameters behind the per-frequency factors that GGUF stores instead of them, and check they are these.

    All published Llama 3.x checkpoints share every parameter but `factor`, which is the largest of the factors.
    """
    tensor = file.tensors[ROPE_FREQUENCIES]
    if tensor.encoding != "F32" or tensor.shape != (config["head_dim"] // 2,):
        raise SourceError(f"{file.path.name}: {ROPE_FREQUENCIES} is {tensor.encoding} {tensor.shape}", INCOMPLETE)
    stored = DECODERS["F32"](file.raw(tensor), tensor.shape).dequantize()
    scaling = {
        "rope_type": "llama3",
        "factor": _shortest(float(stored.max())),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if not np.allclose(stored, llama3_factors(config["rope_theta"], config["head_dim"], scaling), rtol=1e-4):
        raise UnsupportedModel(f"{file.path.name}: {ROPE_FREQUENCIES} is not the scaling of Llama 3", "")
    return scaling


def llama3_factors(theta: float, head_dim: int, scaling: Mapping[str, Any]) -> NDArray[np.float64]:
    """What each rotary frequency is divided by [head_dim / 2] (Llama 3.1; transformers' `modeling_rope_utils`)."""
    frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = context * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _token_ids(metadata: Metadata) -> dict[str, int | None]:
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id", int),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id", int),
    }


def _shown(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:60]
