"""Scales for an int8 KV cache: the largest numbers that calibration text puts into the cache, measured by the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.int8_cache import write_int8_cache_graph
from edgeai.build.validate import GraphRun
from edgeai.package.manifest import (
    ADAPTER_GRAPH_NAME,
    GRAPH_NAME,
    INT8_ADAPTER_GRAPH_NAME,
    INT8_GRAPH_NAME,
    INT8_PROMPT_GRAPH_NAME,
    PROMPT_GRAPH_NAME,
)

TOKENS = 2048  # of calibration text
LARGEST_CODE = 127
GRAPHS = {
    GRAPH_NAME: INT8_GRAPH_NAME,
    ADAPTER_GRAPH_NAME: INT8_ADAPTER_GRAPH_NAME,
    PROMPT_GRAPH_NAME: INT8_PROMPT_GRAPH_NAME,
}
MARGIN = 1.05  # for text that reaches a little further than the calibration did


def kv_scales(graph: Path, config: DecoderConfig, segments: Sequence[Sequence[int]]) -> NDArray[np.float16]:
    """Scales [layers, 2, kv_heads, head_size] of keys, as they are cached, and of values."""
    run = GraphRun(graph, config)
    peaks = np.zeros((config.num_layers, 2, config.num_kv_heads, config.head_size), np.float32)
    for segment in segments:
        ids = segment[: config.context_length]
        np.maximum(peaks, np.abs(run.cached(ids)).max(axis=3), out=peaks)
    smallest = np.finfo(np.float16).tiny  # a channel that is always zero
    scales: NDArray[np.float16] = np.maximum(peaks * np.float32(MARGIN / LARGEST_CODE), smallest).astype(np.float16)
    return scales


def write_int8_caches(graph: Path, config: DecoderConfig, segments: Sequence[Sequence[int]]) -> None:
    """Write the graphs with an int8 cache beside `graph`, the one that takes adapters, and one for prompts if any."""
    scales = kv_scales(graph, config, segments)
    for name, int8_name in GRAPHS.items():
        if graph.with_name(name).exists():
            write_int8_cache_graph(graph.with_name(name), scales, graph.with_name(int8_name))
