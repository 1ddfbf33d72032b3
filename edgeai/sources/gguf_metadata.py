"""Typed access to the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError
from edgeai.sources.gguf_format import RawTensor

LARGEST = 2**31 - 1
INCOMPLETE = "the file was converted incompletely; convert it again or use another one"


class Contents(Protocol):
    """What a GGUF file holds, or a set of them that is one model split up."""

    @property
    def path(self) -> Path:
        """The file that messages name."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Values by key."""

    @property
    def tensors(self) -> Mapping[str, RawTensor]:
        """Tensors by name."""

    def raw(self, tensor: RawTensor) -> NDArray[np.uint8]:
        """The bytes of a tensor."""


class Metadata:
    """Typed access to metadata; what is missing or of a wrong kind is a `SourceError` that names file and key.

    Keys that begin with a dot are those of the architecture: ".block_count" is "llama.block_count" in a llama.
    """

    def __init__(self, file: Contents, word: str = "") -> None:
        self.name = file.path.name
        self.values = file.metadata
        self.word = word

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """The value of `key`, or `default` when the file does not have it."""
        key = self.full(key)
        value = self.values.get(key, default)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise SourceError(f"{self.name}: metadata key {key!r} is {_shown(value)}, not {kind.__name__}", INCOMPLETE)
        return value

    def require(self, key: str, kind: type[Any]) -> Any:
        """The value of `key`, which has to be there."""
        if self.full(key) not in self.values:
            raise SourceError(f"{self.name}: metadata key {self.full(key)!r} is missing", INCOMPLETE)
        return self.get(key, kind)

    def positive(self, key: str, kind: type[int] | type[float]) -> Any:
        """A positive number that has to be there; of a float the decimal that was meant."""
        value = self.require(key, kind)
        if not 0 < value <= LARGEST:
            raise SourceError(f"{self.name}: metadata key {self.full(key)!r} is {value!r}", INCOMPLETE)
        return shortest(value) if kind is float else int(value)

    def has(self, key: str) -> bool:
        return self.full(key) in self.values

    def full(self, key: str) -> str:
        """The key as it stands in the file."""
        return self.word + key if key.startswith(".") else key


def shortest(value: float) -> float:
    """The decimal that was meant: metadata keeps 1e-5 as the float32 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _shown(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:60]
