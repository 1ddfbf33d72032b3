"""A second set of weights that prompts are read with: int8, a scale for each row (architectures/prompt_graph.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.prompt_graph import write_prompt_graph
from edgeai.architectures.reference import EMBEDDINGS
from edgeai.build.quantize.rows import quantized_rows
from edgeai.build.quantize.scheme import Job
from edgeai.build.validate import GraphRun, chunked, compare, significant
from edgeai.errors import ValidationFailed
from edgeai.package.manifest import PROMPT_GRAPH_NAME, PROMPT_WEIGHTS_NAME
from edgeai.sources.weights import Tensor

LIMIT = 0.05  # nats per token: what is said behind a prompt that was read so, from behind one that was not


def write_prompts(job: Job, stored: LoadTensor, graph: Path) -> None:
    """Write the graph that reads prompts, and its weights, beside `graph`, which keeps the tensors `stored`."""
    rows = quantized_rows(job, stored)

    def load(name: str) -> Tensor:
        return rows.load(name) if name in rows.made and name != EMBEDDINGS else stored(name)

    write_prompt_graph(
        graph, job.config, load, graph.with_name(PROMPT_GRAPH_NAME), graph.with_name(PROMPT_WEIGHTS_NAME)
    )


def measure_prompts(graph: Path, config: DecoderConfig, ids: Sequence[int]) -> float:
    """Mean KL divergence, in nats per token, of the last third of `ids` once the graph for prompts has read the others.

    Against `graph` having read them itself. Raises `ValidationFailed` when it is more than `LIMIT`.
    """
    plain = GraphRun(graph, config)
    steps = chunked(len(ids))
    read, rest = steps[0], ids[steps[0] :]
    cached = GraphRun(graph.with_name(PROMPT_GRAPH_NAME), config).cached(ids[:read])
    expected = plain.logits(ids, steps)[read:]
    divergence = significant(compare(expected, plain.logits(ids, steps[1:], cached), rest).mean_kl)
    if not divergence <= LIMIT:  # written so that NaN fails
        raise ValidationFailed(
            f"answers behind a prompt that the int8 weights have read are {divergence} nats per token away, more than"
            f" {LIMIT}; nothing was published",
            "leave the weights for prompts out",
        )
    return divergence
