"""Exports a decoder through optimum, and computes transformers' own logits to compare the export with.

The graph takes input_ids, attention_mask, position_ids (of most families) and past_key_values.N.key/value, and gives
logits and present.N.key/value, past and new positions concatenated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import main_export
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, AutoModelForCausalLM

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.exporter.checkpoint import load_whole

TASK = "text-generation-with-past"
DEFAULT_CONTEXT = 2048  # tokens, where a configuration sets no limit (ALiBi)
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}  # traced at one length, and wrong beyond the original context


def export(folder: str, out: str, ids: list[int]) -> dict[str, Any]:
    """Write into `out`: model.onnx as optimum makes it, and logits.npy of `ids`, cut to the model's context.

    Raises `UnsupportedModel` for what optimum or transformers do not know, `SourceError` for damaged checkpoints.
    """
    config = _config(folder)
    context = context_length(config)
    ids = ids[:context]
    parameters = _reference_logits(folder, ids, Path(out, "logits.npy"))
    _export(folder, out)
    return {
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "context_length": context,
        "parameters": parameters,
        "ids": ids,
    }


def _config(folder: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise UnsupportedModel(*_why(folder, error)) from error
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(config.model_type, "onnx", library_name="transformers")
    except KeyError:
        tasks = {}
    if TASK not in tasks:
        raise UnsupportedModel(
            f"optimum does not export {config.model_type!r} for text generation",
            "convert the model to one of the architectures that edgeai builds itself",
        )
    return config


def _why(folder: str, error: Exception) -> tuple[str, str]:
    """Message and hint for a configuration that transformers does not load."""
    declared: Mapping[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    kind = declared.get("model_type")
    if "auto_map" in declared:
        return (
            f"{kind!r} needs code that comes with the checkpoint, which edgeai does not run",
            "use a model that transformers knows by itself",
        )
    return f"transformers does not load {kind!r}: {error}", "check config.json"


def context_length(config: Any) -> int:
    """Positions that an export is right for: at other lengths some parts of a model would need another trace.

    Sliding windows are exported as plain attention, so the context ends with the window.
    """
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len", "seq_length")]
    known: list[int] = [limit for limit in limits if isinstance(limit, int)]
    rope = getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in LENGTH_DEPENDENT_ROPE:
        original = getattr(config, "original_max_position_embeddings", None) or DEFAULT_CONTEXT
        known.append(int(rope.get("original_max_position_embeddings") or original))
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        known.append(int(window))
    return min(known, default=DEFAULT_CONTEXT)


def _reference_logits(folder: str, ids: list[int], path: Path) -> int:
    """Save transformers' float32 logits [tokens, vocab_size]; returns the number of parameters."""
    model = load_whole(AutoModelForCausalLM, folder)
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].float().numpy()
    if not np.isfinite(logits).all():
        raise SourceError("the model's logits are not finite: its weights are damaged", "get the checkpoint again")
    np.save(path, logits)
    return int(model.num_parameters())


def _export(folder: str, out: str) -> None:
    main_export(
        folder,
        out,
        task=TASK,
        framework="pt",
        library_name="transformers",
        local_files_only=True,
        trust_remote_code=False,
        do_validation=False,  # the build compares with logits of its own, at many lengths
    )
