"""A decoder's shape, read from the keys of Hugging Face's `config.json`, every one checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edgeai.errors import SourceError, UnsupportedModel

Value = TypeVar("Value", int, float, bool)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes and constants of a decoder-only transformer."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context_length: int  # positions the model was trained for
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_size


def read_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Parse and check a configuration.

    Raises:
        SourceError: a key is missing or has an impossible value.
        UnsupportedModel: the configuration asks for something the shared blocks do not have.
    """
    _refuse_unsupported(config)
    hidden, heads = _number(config, "hidden_size", int), _number(config, "num_attention_heads", int)
    decoder = DecoderConfig(
        model_type=str(config.get("model_type", "")),
        vocab_size=_number(config, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=_number(config, "intermediate_size", int),
        num_layers=_number(config, "num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=_number(config, "num_key_value_heads", int, heads),
        head_size=_number(config, "head_dim", int, hidden // heads),
        context_length=_number(config, "max_position_embeddings", int),
        rope_theta=_number(config, "rope_theta", float, 10000.0),
        norm_epsilon=_number(config, "rms_norm_eps", float, 1e-6),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    if decoder.num_heads % decoder.num_kv_heads:
        raise SourceError(f"config: {heads} attention heads do not divide among {decoder.num_kv_heads} KV heads")
    if decoder.head_size % 16:
        raise UnsupportedModel(f"config: head size {decoder.head_size} is not a multiple of 16")
    return decoder


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    scaling = config.get("rope_scaling")
    if scaling:
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, Mapping) else scaling
        raise UnsupportedModel(f"config: rope_scaling {kind!r} is not supported", "use a model with plain RoPE")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UnsupportedModel(f"config: {key} is not supported", "use a model without biases")
    if config.get("hidden_act", "silu") != "silu":
        raise UnsupportedModel(f"config: hidden_act {config['hidden_act']!r} is not supported, only 'silu' is")


def _number(config: Mapping[str, Any], key: str, kind: type[Value], default: Value | None = None) -> Value:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise SourceError(f"config: {key} is missing", "the checkpoint is incomplete; get it again")
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_positive(value, kind):
        raise SourceError(f"config: {key} is {value!r}, not a positive {kind.__name__}")
    return kind(value)


def _is_positive(value: float, kind: type[Value]) -> bool:
    return math.isfinite(value) and value > 0 and kind(value) == value
