"""The size of a package before it is written, for plans with a limit, and the check of the limit afterwards."""

from __future__ import annotations

import math

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.decoder import STRIDE
from edgeai.config import parse_size
from edgeai.errors import ValidationFailed
from edgeai.recipe import QuantizationPlan
from edgeai.sources.weights import WeightSource

GRAPH_BASE, GRAPH_LAYER = 40_000, 26_000  # bytes of the four graphs; measured: 25,400 a layer and 10,000
MANIFEST = 20_000


def other_bytes(written: int, source: WeightSource, config: DecoderConfig) -> int:
    """Bytes of a package beside its quantized matrices: files `written` so far, graph, vectors, rotary tables, scales.

    A little more than it will be.
    """
    vectors = sum(4 * math.prod(info.shape) for info in source.tensors if len(info.shape) < 2)
    ropes = {layer.rope for layer in config.layers if layer.rope is not None}
    tables = sum(rope.size * 4 * (STRIDE + config.context_length // STRIDE + 1) for rope in ropes)
    kv_scales = 2 * config.num_layers * 2 * config.num_kv_heads * config.head_size * 4
    padding = 64 * 4 * len(source.tensors)
    graph = GRAPH_BASE + GRAPH_LAYER * config.num_layers
    return written + vectors + tables + kv_scales + padding + graph + MANIFEST


def require_size(written: int, plan: QuantizationPlan) -> None:
    """Raise `ValidationFailed` where a package has become larger than its plan allows."""
    if plan.max_size is not None and written > parse_size(plan.max_size):
        raise ValidationFailed(
            f"the package takes {written / 1e6:.1f} MB, more than the {plan.max_size} that were asked for;"
            " nothing was published",
            "allow a larger package",
        )
