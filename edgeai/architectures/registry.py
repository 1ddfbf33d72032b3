"""Which architectures edgeai knows: one entry per `model_type`, one file each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures import llama
from edgeai.architectures.config import DecoderConfig, read_config
from edgeai.architectures.decoder import DecoderBuilder, LoadTensor
from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.reference import ReferenceDecoder
from edgeai.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class DecoderArchitecture:
    """How to write one family's graph, and how to compute the same thing plainly."""

    build: Callable[[DecoderBuilder], None]
    reference: Callable[[ReferenceDecoder], None]


ARCHITECTURES: Mapping[str, DecoderArchitecture] = {
    "llama": DecoderArchitecture(llama.build, llama.reference),
}


def architecture_for(model_type: str) -> DecoderArchitecture:
    """Raises `UnsupportedModel`, naming the nearest supported architecture."""
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    near = difflib.get_close_matches(model_type, ARCHITECTURES, n=1, cutoff=0.3) or sorted(ARCHITECTURES)[:1]
    known = ", ".join(sorted(ARCHITECTURES))
    raise UnsupportedModel(
        f"architecture {model_type!r} is not supported", f"supported: {known}; the nearest is {near[0]!r}"
    )


def write_graph(config: Mapping[str, Any], load: LoadTensor, graph_path: Path, weights_path: Path) -> DecoderConfig:
    """Write a decoder's graph and weights; `load` gives tensors by Hugging Face name, in the form to be stored."""
    architecture = architecture_for(str(config.get("model_type", "")))
    decoder = read_config(config)
    with GraphBuilder(weights_path) as graph:
        architecture.build(DecoderBuilder(graph, decoder, load))
        graph.save(graph_path, name=decoder.model_type)
    return decoder


def reference_logits(config: Mapping[str, Any], load: LoadTensor, ids: list[int]) -> NDArray[np.float32]:
    """Logits [tokens, vocab_size] of the plain numpy forward pass."""
    reference = ReferenceDecoder(read_config(config), load, ids)
    architecture_for(reference.config.model_type).reference(reference)
    return np.concatenate(list(reference.logits()), axis=1)
