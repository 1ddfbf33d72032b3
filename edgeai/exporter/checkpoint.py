"""Loads a checkpoint with transformers, whole or not at all."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError

from edgeai.errors import SourceError


def load_whole(kind: Any, folder: str, *, unused: str | None = None) -> Any:
    """The model in float32, ready to be run; `kind` is one of transformers' Auto classes.

    Tensors whose names begin with `unused` may be missing. Raises `SourceError` for what cannot be loaded, and where
    others are missing: transformers would fill them with random numbers.
    """
    try:
        model, loading = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SourceError(f"transformers cannot load the weights: {error}", "get the checkpoint again") from error
    absent = sorted(name for name in loading["missing_keys"] if unused is None or not name.startswith(unused))
    if absent:
        raise SourceError(f"the checkpoint has no {', '.join(absent[:3])}", "get the checkpoint again")
    return model.eval()
