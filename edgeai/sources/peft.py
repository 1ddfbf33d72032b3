"""LoRA adapters as PEFT writes them: a folder with adapter_config.json and adapter_model.safetensors.

An adapter has two matrices for each module that it changes, A [r, inputs] and B [outputs, r], and adds
``scale * B @ A`` to the module's weight (Hu et al. 2021), with ``scale = lora_alpha / r``, or
``lora_alpha / sqrt(r)`` for rank-stabilized ones (Kalajdzievski 2023). Variants that do something else are refused by
name. Module names are those of the checkpoint, such as model.layers.0.self_attn.q_proj.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf import file_digest
from edgeai.sources.safetensors import StoredArray, read_header

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
LARGEST = 1e6  # of a value; beyond it, products of other rows in a batch could overflow too

# Keys that change what is computed, with the values that change nothing; and those that only matter in training.
OFF: tuple[Any, ...] = (None, False, "", 0, [], {})
INNOCENT = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode"),
    *("layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_config", "megatron_core"),
    *("peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules"),
    *("task_type", "use_rslora", "eva_config", "runtime_config", "init_lora_weights", "bias"),
}
# Initializations that also change the base's weights, so that the adapter alone does not tell the result.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
INCOMPLETE = "save the adapter again with PEFT's save_pretrained"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to one module's weight [outputs, inputs]: ``scale * b @ a``."""

    a: Floats  # [r, inputs]
    b: Floats  # [outputs, r]
    scale: float

    def delta(self) -> Floats:
        """The sum's second term, whole [outputs, inputs]."""
        product: Floats = (self.b @ self.a) * np.float32(self.scale)
        return product


class PeftAdapter:
    """An opened adapter folder. Configuration, names and shapes are checked; values when they are loaded.

    Raises `SourceError` for what is damaged or missing, `UnsupportedModel` for variants edgeai does not know.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config = _read_config(folder)
        self._factors = dict(_pairs(_open_weights(folder)))
        if not self._factors:
            raise SourceError(f"{folder / WEIGHTS_NAME} changes no module", INCOMPLETE)
        self._ranks = {module: self._check(module, a, b) for module, (a, b) in self._factors.items()}

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def modules(self) -> Mapping[str, tuple[int, int]]:
        """The modules it changes, with the shapes [outputs, inputs] their weights have to have."""
        return {module: (b.shape[0], a.shape[1]) for module, (a, b) in self._factors.items()}

    @property
    def rank(self) -> int:
        """The largest rank of all modules."""
        return max(self._ranks.values())

    @property
    def parameters(self) -> int:
        """Values of all factors."""
        return sum(math.prod(factor.shape) for pair in self._factors.values() for factor in pair)

    def digests(self) -> dict[str, str]:
        """sha256 of the files it was read from."""
        config = (self.folder / CONFIG_NAME).read_bytes()
        return {
            CONFIG_NAME: hashlib.sha256(config).hexdigest(),
            WEIGHTS_NAME: file_digest(self.folder / WEIGHTS_NAME),
        }

    def check_base(self, shapes: Mapping[str, tuple[int, ...]], base: str) -> None:
        """Compare with the base's modules and the shapes of their weights. Raises `SourceError` naming the first."""
        for module, shape in self.modules.items():
            if module not in shapes:
                raise SourceError(
                    f"adapter {self.name} changes {module}, which {base} does not have",
                    "use the model that the adapter was trained on",
                )
            if tuple(shapes[module]) != shape:
                raise SourceError(
                    f"adapter {self.name} is for a {module} of shape {list(shape)}; that of {base} has"
                    f" {list(shapes[module])}",
                    "use the model that the adapter was trained on",
                )

    def load(self, module: str) -> LowRank:
        """The factors of one module. Raises `SourceError` for values that are no sensible numbers."""
        a, b = (_values(factor) for factor in self._factors[module])
        return LowRank(a, b, self._scale(module))

    def _check(self, module: str, a: StoredArray, b: StoredArray) -> int:
        rank = int(self._setting("rank_pattern", module, self._config["r"]))
        for factor, axis in ((a, 0), (b, 1)):
            if len(factor.shape) != 2:
                raise UnsupportedModel(f"{factor.where} has shape {list(factor.shape)}; only matrices are supported")
            if factor.shape[axis] != rank:
                raise SourceError(
                    f"{factor.where} has rank {factor.shape[axis]}; the configuration says {rank}", INCOMPLETE
                )
        return rank

    def _scale(self, module: str) -> float:
        rank = self._ranks[module]
        alpha = float(self._setting("alpha_pattern", module, self._config["lora_alpha"]))
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _setting(self, pattern: str, module: str, default: float) -> float:
        """A value that may differ by module: keys are matched against the end of its name, as PEFT does."""
        for key, value in (self._config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return float(value)
        return default


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise SourceError(f"{folder} is no PEFT adapter: it has no {CONFIG_NAME}", "name the adapter's folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}", INCOMPLETE) from None
    if not isinstance(config, dict):
        raise SourceError(f"{path} is no JSON object", INCOMPLETE)
    _refuse_variants(path, config)
    for key in ("r", "lora_alpha"):
        if not _positive(config.get(key)):
            raise SourceError(f"{path}: {key} is {config.get(key)!r}, not a positive number", INCOMPLETE)
    for key in ("rank_pattern", "alpha_pattern"):
        _check_pattern(path, key, config.get(key) or {})
    return config


def _refuse_variants(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        kind = config.get("peft_type")
        raise UnsupportedModel(f"{path}: adapters of type {kind!r} are not supported", "train a LoRA adapter")
    if config.get("bias", "none") != "none":
        raise UnsupportedModel(f"{path}: bias {config['bias']!r} is not supported", "train with bias='none'")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(CHANGES_BASE):
        raise UnsupportedModel(
            f"{path}: init_lora_weights {start!r} also changes the base's weights",
            "convert it to plain LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    for key in sorted(config.keys() - INNOCENT):
        if config[key] not in OFF:
            raise UnsupportedModel(f"{path}: {key} {config[key]!r} is not supported", "train plain LoRA without it")


def _check_pattern(path: Path, key: str, pattern: Any) -> None:
    if not isinstance(pattern, dict) or not all(_positive(value) for value in pattern.values()):
        raise SourceError(f"{path}: {key} is not a table of positive numbers", INCOMPLETE)
    for expression in pattern:
        try:
            re.compile(expression)
        except re.error as error:
            raise SourceError(f"{path}: {key} has {expression!r}, which is no pattern: {error}", INCOMPLETE) from None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST


def _open_weights(folder: Path) -> Mapping[str, StoredArray]:
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return read_header(path)
    if (folder / PICKLE_NAME).exists():
        raise UnsupportedModel(
            f"{folder / PICKLE_NAME} is a pickle file, which can run code when it is read; it is not opened",
            "save the adapter with safe_serialization=True",
        )
    raise SourceError(f"{folder} has no {WEIGHTS_NAME}", INCOMPLETE)


def _pairs(tensors: Mapping[str, StoredArray]) -> Iterator[tuple[str, tuple[StoredArray, StoredArray]]]:
    """Both factors of every module, in the order of the file."""
    found: dict[str, dict[str, StoredArray]] = {}
    for name, tensor in tensors.items():
        match = FACTOR.fullmatch(name)
        if match is None or not name.startswith(PREFIX):
            raise UnsupportedModel(
                f"{tensor.where} is no factor of a low-rank adapter", "train plain LoRA on linear layers only"
            )
        module = match["module"].removeprefix(PREFIX)
        if match["factor"] in found.setdefault(module, {}):
            raise SourceError(f"{tensor.where} is there twice", INCOMPLETE)
        found[module][match["factor"]] = tensor
    for module, factors in found.items():
        if len(factors) < 2:
            missing = "B" if "A" in factors else "A"
            raise SourceError(f"{WEIGHTS_NAME}: lora_{missing} of {module} is missing", INCOMPLETE)
        yield module, (factors["A"], factors["B"])


def _values(factor: StoredArray) -> Floats:
    values = factor.floats().dequantize()
    if values.size and float(np.abs(values).max()) > LARGEST:
        raise SourceError(f"{factor.where} holds values beyond {LARGEST:g}", "the adapter diverged when it was trained")
    return values
