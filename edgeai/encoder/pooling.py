"""From hidden states to one vector per text: pooling, normalization, shortening."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import InvalidInput
from edgeai.package.manifest import Pooling

__all__ = ["check_dimensions", "normalized", "pool", "shortened"]

Floats = NDArray[np.float32]


def pool(hidden: Floats, pooling: Pooling) -> Floats:
    """[rows, tokens, width] without padding to [rows, width]: the first token's state, or the mean of all."""
    match pooling:
        case "cls":
            first: Floats = hidden[:, 0]
            return first
        case "mean":
            mean: Floats = hidden.mean(axis=1, dtype=np.float32)
            return mean


def normalized(vectors: Floats) -> Floats:
    """Vectors [rows, width] at length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def shortened(vectors: Floats, dimensions: int | None, *, normalize: bool) -> Floats:
    """The first `dimensions` values of each vector, at length 1 again if they were.

    Only models that were trained for it (Matryoshka) keep their quality. Raises `InvalidInput` for more than there are.
    """
    check_dimensions(dimensions, vectors.shape[1])
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    first = vectors[:, :dimensions]
    return normalized(first) if normalize else first


def check_dimensions(dimensions: int | None, width: int) -> None:
    """Raises `InvalidInput` for more values than a vector of `width` has."""
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidInput(
            f"dimensions is {dimensions}, but this model's vectors have {width}", "ask for fewer", param="dimensions"
        )
