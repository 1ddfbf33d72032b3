"""The language model inside a checkpoint that also has a vision part, as a checkpoint of its own.

Gemma 3 is published so: `text_config` is the language model's configuration, and its tensors lie below
`language_model.` or, as newer versions of transformers write them, below `model.language_model.`. Everything else is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeai.errors import SourceError
from edgeai.sources.weights import Provenance, Tensor, TensorInfo, TokenizerFiles, WeightSource

TEXT_MODEL = {"gemma3": "gemma3_text"}  # model_type of the whole, of its text part


def text_part(source: WeightSource) -> WeightSource:
    """`source` itself, or the text part of a checkpoint that has others."""
    whole = str(source.config.get("model_type", ""))
    return TextPart(source, TEXT_MODEL[whole]) if whole in TEXT_MODEL else source


def text_name(name: str) -> str | None:
    """The name that a tensor has in a checkpoint of the language model alone; None for another part's."""
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    if name.startswith("language_model."):
        return name.removeprefix("language_model.")
    return name if name == "lm_head.weight" else None


class TextPart:
    """A `WeightSource` over the text part of another one."""

    def __init__(self, source: WeightSource, model_type: str) -> None:
        text = source.config.get("text_config")
        if not isinstance(text, Mapping):
            raise SourceError("config: text_config is missing", "the checkpoint is incomplete; get it again")
        self._source = source
        self._config = {**text, "model_type": model_type}
        named = [(text_name(info.name), info) for info in source.tensors]
        self._tensors = [replace(info, name=name) for name, info in named if name is not None]
        self._names = {name: info.name for name, info in named if name is not None}

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    @property
    def provenance(self) -> Provenance:
        return self._source.provenance

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        return self._tensors

    def load(self, name: str) -> Tensor:
        return self._source.load(self._names.get(name, name))

    def tokenizer(self) -> TokenizerFiles:
        return self._source.tokenizer()
