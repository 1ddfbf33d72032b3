"""Exports a text encoder through optimum, fuses it by onnxruntime's optimizer, and computes transformers' own results.

The graph takes input_ids and, where the model has them, token_type_ids, both [batch, tokens], and gives
last_hidden_state [batch, tokens, hidden] or, of a reranker, logits [batch, 1]. Where attention could be fused there is
no attention_mask: sequences of one run have to be of one length, which lets onnxruntime use its faster attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from optimum.exporters.onnx import main_export
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.exporter.checkpoint import load_whole

EXPORTED, GRAPH = "exported", "float.onnx"
MASK = "attention_mask"


def export(folder: str, out: str, texts: Sequence[Any], max_length: int, scores: bool) -> dict[str, Any]:
    """Write into `out`: float.onnx with its weights, tokenizer.json, and reference.npz of `texts`.

    `texts` are strings, or pairs of them for a reranker (`scores`). reference.npz has for each text i its ids `ids.i`
    and `result.i`: hidden states [tokens, hidden], or the logit [1]. Raises `SourceError` for damaged checkpoints.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = _tokenizer(folder)
    parameters = _reference(folder, tokenizer, texts, max_length, scores, Path(out, "reference.npz"))
    _export(folder, out, scores)
    fused = _fuse(Path(out), config)
    Path(out, "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    return {"parameters": parameters, "fused": fused, "vocab_size": config.vocab_size}


def _tokenizer(folder: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise SourceError(f"the tokenizer cannot be loaded: {error}", "the folder needs a tokenizer.json") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UnsupportedModel(f"{type(tokenizer).__name__} has no tokenizer.json", "use a checkpoint with one")
    return tokenizer


def _reference(folder: str, tokenizer: Any, texts: Sequence[Any], limit: int, scores: bool, path: Path) -> int:
    """Save ids and results in float32, each text alone; returns the number of parameters."""
    model = _load(folder, scores)
    arrays: dict[str, Any] = {}
    with torch.inference_mode():
        for number, text in enumerate(texts):
            parts = text if isinstance(text, list) else [text]
            cut = "only_second" if scores else True
            inputs = tokenizer(*parts, truncation=cut, max_length=limit, return_tensors="pt")
            output = model(**inputs)
            arrays[f"ids.{number}"] = inputs.input_ids[0].numpy()
            arrays[f"result.{number}"] = (output.logits if scores else output.last_hidden_state)[0].numpy()
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise SourceError("the model's results are not finite: its weights are damaged", "get the checkpoint again")
    np.savez(path, **arrays)
    return int(model.num_parameters())


def _load(folder: str, scores: bool) -> Any:
    kind = AutoModelForSequenceClassification if scores else AutoModel
    return load_whole(kind, folder, unused="pooler.")  # the pooler is not exported


def _export(folder: str, out: str, scores: bool) -> None:
    main_export(
        folder,
        str(Path(out, EXPORTED)),
        task="text-classification" if scores else "feature-extraction",
        framework="pt",
        library_name="transformers",
        local_files_only=True,
        trust_remote_code=False,
        do_validation=False,  # the build compares with the results above
    )


def _fuse(out: Path, config: Any) -> dict[str, int]:
    """Fusions by onnxruntime of attention and GELU, as far as they help its CPU provider; returns their counts.

    SkipLayerNormalization is left apart: its CPU kernel is slower than an addition and LayerNormalization.
    """
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False
    options.enable_skip_layer_norm = False
    options.use_multi_head_attention = True
    model = optimizer.optimize_model(
        str(out / EXPORTED / "model.onnx"),
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
        opt_level=0,
    )
    fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
    if fused.get("MultiHeadAttention", 0) == config.num_hidden_layers:
        _drop_mask(model)
    model.prune_graph()
    model.save_model_to_file(str(out / GRAPH), use_external_data_format=True)
    return fused


def _drop_mask(model: Any) -> None:
    """Take the mask out: without it attention does not materialize its scores."""
    for node in model.get_nodes_by_op_type("MultiHeadAttention"):
        node.input[4] = ""
    model.prune_graph()
    if not any(MASK in node.input for node in model.nodes()):
        inputs = model.model.graph.input
        kept = [entry for entry in inputs if entry.name != MASK]
        del inputs[:]
        inputs.extend(kept)
