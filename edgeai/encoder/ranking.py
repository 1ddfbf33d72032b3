"""The order of documents by their scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranked"]


def ranked(scores: NDArray[np.float32], top: int | None = None) -> list[tuple[int, float]]:
    """Position and score of each document, best first, equal ones in their order; only the `top` first."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [(int(place), float(scores[place])) for place in order]
