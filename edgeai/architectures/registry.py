"""Which architectures edgeai knows: one entry per `model_type`, one file each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures import (
    ernie4_5,
    gemma2,
    gemma3_text,
    glm4,
    granite,
    llama,
    minicpm,
    mistral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from edgeai.architectures.adapters import write_adapter_graph
from edgeai.architectures.blocks import Blocks, LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.decoder import DecoderBuilder
from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.keys import Keys
from edgeai.architectures.linear import LinearBuilder
from edgeai.architectures.reference import ReferenceDecoder
from edgeai.architectures.rope import unified
from edgeai.errors import UnsupportedModel
from edgeai.package.adapter_sites import sites_bytes
from edgeai.package.manifest import ADAPTER_GRAPH_NAME, ADAPTER_SITES_NAME


@dataclass(frozen=True, slots=True)
class DecoderArchitecture:
    """How one family reads its configuration, and its definition in shared blocks, for graph and numpy alike."""

    configure: Callable[[Keys], DecoderConfig]
    forward: Callable[[Blocks[Any]], None]


ARCHITECTURES: Mapping[str, DecoderArchitecture] = {
    "ernie4_5": DecoderArchitecture(ernie4_5.configure, ernie4_5.forward),
    "gemma2": DecoderArchitecture(gemma2.configure, gemma2.forward),
    "gemma3_text": DecoderArchitecture(gemma3_text.configure, gemma3_text.forward),
    "glm4": DecoderArchitecture(glm4.configure, glm4.forward),
    "granite": DecoderArchitecture(granite.configure, granite.forward),
    "llama": DecoderArchitecture(llama.configure, llama.forward),
    "minicpm": DecoderArchitecture(minicpm.configure, minicpm.forward),
    "mistral": DecoderArchitecture(mistral.configure, mistral.forward),
    "olmo2": DecoderArchitecture(olmo2.configure, olmo2.forward),
    "phi3": DecoderArchitecture(phi3.configure, phi3.forward),
    "qwen2": DecoderArchitecture(qwen2.configure, qwen2.forward),
    "qwen3": DecoderArchitecture(qwen3.configure, qwen3.forward),
    "qwen3_moe": DecoderArchitecture(qwen3_moe.configure, qwen3_moe.forward),
    "smollm3": DecoderArchitecture(smollm3.configure, smollm3.forward),
}


def architecture_for(model_type: str) -> DecoderArchitecture:
    """Raises `UnsupportedModel`, naming the nearest supported architecture."""
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    near = difflib.get_close_matches(model_type.lower(), ARCHITECTURES, n=1, cutoff=0.3) or sorted(ARCHITECTURES)[:1]
    known = ", ".join(sorted(ARCHITECTURES))
    raise UnsupportedModel(
        f"architecture {model_type!r} is not supported",
        f"supported: {known}; the nearest is {near[0]!r}. `--exporter optimum` runs many others, slower",
    )


def decoder_config(config: Mapping[str, Any], context: int | None = None) -> DecoderConfig:
    """Parse and check a `config.json`. `context`: positions the package is made for, by default the model's own.

    Raises `UnsupportedModel`, `SourceError` or `InvalidInput` (a context that the model does not have).
    """
    architecture = architecture_for(str(config.get("model_type", "")))
    return architecture.configure(Keys(unified(config), context))


def write_graph(
    config: Mapping[str, Any],
    load: LoadTensor,
    graph_path: Path,
    weights_path: Path,
    *,
    context: int | None = None,
    linear: type[LinearBuilder] = LinearBuilder,
) -> DecoderConfig:
    """Write a decoder's graph and weights; `load` gives tensors by Hugging Face name, in the form to be stored.

    `linear` writes the matrix products: as `LinearBuilder`, or as `Int8LinearBuilder` for processors without dotprod.

    Beside the graph goes the one that takes adapters, over the same weights, and where it takes them.
    """
    decoder = decoder_config(config, context)
    with GraphBuilder(weights_path) as graph:
        builder = DecoderBuilder(graph, decoder, load, linear)
        architecture_for(decoder.model_type).forward(builder)
        graph.save(graph_path, name=decoder.model_type)
    write_adapter_graph(graph_path, builder.products, graph_path.with_name(ADAPTER_GRAPH_NAME))
    sites = tuple(product.site for product in builder.products)
    graph_path.with_name(ADAPTER_SITES_NAME).write_bytes(sites_bytes(sites))
    return decoder


def run_reference(reference: ReferenceDecoder) -> None:
    """Run a plain numpy decoder, or what is built on one, to the input of its output head."""
    architecture_for(reference.config.model_type).forward(reference)


def reference_logits(
    config: Mapping[str, Any] | DecoderConfig, load: LoadTensor, ids: list[int]
) -> NDArray[np.float32]:
    """Logits [tokens, vocab_size] of the plain numpy forward pass."""
    decoder = config if isinstance(config, DecoderConfig) else decoder_config(config)
    reference = ReferenceDecoder(decoder, load, ids)
    run_reference(reference)
    return np.concatenate(list(reference.logits()), axis=1)
