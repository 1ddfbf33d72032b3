"""The form of the tables that say what GGUF calls things: metadata keys and tensors beside their Hugging Face words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeai.sources.gguf_metadata import Metadata

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One entry of config.json and the metadata key (without the architecture's word) that holds it.

    A key that is absent has `default`; where that is None too, it is an error unless the key is `optional`. Optional
    entries are null when the key is absent or zero.
    """

    name: str
    key: str
    kind: type[int] | type[float] = int
    default: float | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TensorRule:
    """Hugging Face name and shape of a tensor.

    `rotary_heads` names the config entry with the number of heads whose rows llama.cpp keeps in interleaved
    order (pairs of a rotation side by side) instead of Hugging Face's (first halves, then second halves).
    `offset` is what the converter added to the values. A name with "{expert}" is that of as many tensors as there are
    experts, which GGUF stacks along a first axis that `shape` leaves out.
    """

    name: str
    shape: tuple[str, ...]
    rotary_heads: str = ""
    optional: bool = False
    offset: float = 0.0

    @property
    def per_expert(self) -> bool:
        return "{expert}" in self.name


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that differs between architectures: words, constants of config.json, and what has to be refused."""

    word: str  # GGUF's
    model_type: str
    class_name: str
    constants: Mapping[str, object]
    config: tuple[ConfigKey, ...]
    tensors: Mapping[str, TensorRule]  # of the whole model
    layer_tensors: Mapping[str, TensorRule]  # of each layer, behind "blk.N." and "model.layers.N."
    # Metadata keys which, when not zero, mean a model that this table does not describe.
    refused_keys: Mapping[str, str] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)  # entries that say whether the first layer has this tensor
    partial_rotation: bool = False  # whether a part of each head may be rotated
    computed: Callable[[Metadata, Config], Config] = lambda _metadata, _config: {}  # entries that need arithmetic
