"""Tensors of a checkpoint folder by their listed names, however they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeai.errors import UnsupportedModel
from edgeai.sources.safetensors import FLOATS, StoredArray
from edgeai.sources.weights import Tensor, TensorInfo

Arrays = Mapping[str, StoredArray]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor by its listed name, how to read it, and where it lies if it is stored as it is."""

    info: TensorInfo
    read: Callable[[], Tensor]
    array: StoredArray | None = None


def plain(name: str, array: StoredArray) -> Entry:
    """A tensor that is stored as it is. Raises `UnsupportedModel` for any but float types."""
    if array.dtype not in FLOATS:
        raise UnsupportedModel(
            f"{array.where} is of type {array.dtype}, which is not supported", f"supported: {', '.join(FLOATS)}"
        )
    return Entry(TensorInfo(name, array.shape, array.dtype), array.floats, array)
