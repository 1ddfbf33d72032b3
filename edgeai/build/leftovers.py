"""Tensors that a checkpoint has and no part of the graph asked for.

A bias that the architecture does not know would change every answer, so none is dropped silently.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import WeightSource

NAMED = 4  # names in an error


def require_all_used(source: WeightSource, loaded: Collection[str]) -> None:
    """Raise `UnsupportedModel` that names the tensors which were not loaded. Biases of zeros may be left."""
    left = [info.name for info in source.tensors if info.name not in loaded and not _adds_nothing(source, info.name)]
    if left:
        names = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
        kind = source.config.get("model_type")
        raise UnsupportedModel(
            f"the checkpoint has {len(left)} tensors that {kind!r} does not use: {names}; nothing was published",
            "this is a variant of the architecture that edgeai does not know, and answers would be wrong without them",
        )


def _adds_nothing(source: WeightSource, name: str) -> bool:
    """Old GPTQ checkpoints carry a bias of zeros for every matrix."""
    return name.endswith(".bias") and not source.load(name).dequantize().any()
