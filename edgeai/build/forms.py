"""How weights are quantized and written for each form of matrix products that a target may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeai.architectures.linear import LinearBuilder
from edgeai.architectures.linear_int8 import Int8LinearBuilder
from edgeai.build.quantize.rows import quantized_rows
from edgeai.build.quantize.scheme import Job, Quantized, quantized
from edgeai.build.validate import GRAPH_LIMIT
from edgeai.package.cpu_targets import LinearForm


@dataclass(frozen=True, slots=True)
class Form:
    """What quantizes and what writes the products; mean KL divergences in nats per token."""

    quantized: Callable[[Job], Quantized]
    builder: type[LinearBuilder]
    limit: float  # of a graph from its own weights
    allowance: float = 0.0  # from the source, where a recipe was made for a form that is nearer


FORMS: Mapping[LinearForm, Form] = {
    "blocks": Form(quantized, LinearBuilder, GRAPH_LIMIT),
    # A scale for a whole row of activations costs more than one for 32 of them: 0.01 to 0.02 for SmolLM2-135M.
    "rows": Form(quantized_rows, Int8LinearBuilder, limit=0.05, allowance=0.05),
}
