"""Weights with a LoRA adapter merged into them, as one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeai.sources.peft import PeftAdapter
from edgeai.sources.weights import FloatTensor, Provenance, Tensor, TensorInfo, TokenizerFiles, WeightSource

SUFFIX = ".weight"


class MergedSource:
    """A source whose matrices have ``scale * B @ A`` added to them. Those matrices are floats, whatever they were.

    `scale` is on top of the adapter's own. Raises `SourceError` for an adapter that does not fit.
    """

    def __init__(self, base: WeightSource, adapter: PeftAdapter, scale: float = 1.0) -> None:
        shapes = {info.name.removesuffix(SUFFIX): info.shape for info in base.tensors}
        adapter.check_base(shapes, base.provenance.location)
        self._base = base
        self._adapter = adapter
        self._scale = scale

    @property
    def config(self) -> Mapping[str, Any]:
        """The base's."""
        return self._base.config

    @property
    def provenance(self) -> Provenance:
        """The base's, with the adapter's name and digests."""
        base, name = self._base.provenance, self._adapter.name
        digests = {f"{name}/{file}": digest for file, digest in self._adapter.digests().items()}
        location = f"{base.location} + adapter {name} x {self._scale:g}"
        return replace(base, location=location, sha256={**base.sha256, **digests})

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """The base's; merged ones are float32."""
        return [replace(info, encoding="F32") if self._merges(info.name) else info for info in self._base.tensors]

    @property
    def requantized(self) -> Sequence[TensorInfo]:
        """Tensors of the base that leave the grid they are stored on."""
        return [
            info
            for info in self._base.tensors
            if self._merges(info.name) and info.encoding not in ("F32", "F16", "BF16")
        ]

    def load(self, name: str) -> Tensor:
        """One tensor, merged where the adapter changes it."""
        tensor = self._base.load(name)
        if not self._merges(name):
            return tensor
        values = tensor.dequantize()
        values += self._adapter.load(name.removesuffix(SUFFIX)).delta() * self._scale
        return FloatTensor(values)

    def tokenizer(self) -> TokenizerFiles:
        """The base's."""
        return self._base.tokenizer()

    def _merges(self, name: str) -> bool:
        return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in self._adapter.modules
