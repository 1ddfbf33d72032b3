"""The same decoder for reading prompts: a graph of its own that fills the KV cache and gives nothing else.

Its matrices are int8 with one scale for each row, in the place of 4- and 8-bit blocks with a scale each: a product of
many tokens is then one integer product, where blocks are unpacked and scaled one by one. Decoding one token is faster
with the smaller blocks, so both are kept, and the vectors and the token table, which are the same, are stored once.
What comes behind the last layer's attention is left out: nothing of it enters the cache. The last token of a prompt,
whose logits are wanted, is a matter of the plain graph.
"""

from __future__ import annotations

from pathlib import Path

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.decoder import DecoderBuilder
from edgeai.architectures.graph import GraphBuilder, StoredWeights
from edgeai.architectures.linear_int8 import Int8LinearBuilder
from edgeai.architectures.registry import architecture_for
from edgeai.sources.weights import Tensor


class PromptLinearBuilder(Int8LinearBuilder):
    """Integer products up to the last layer's attention."""

    unsigned = True  # x86 has no other fast ones, and ARM has both

    def matmul(self, x: str, name: str, tensor: Tensor, bias: str | None = None) -> str:
        if self.positions == "wanted":
            return x  # behind the last attention; whatever reads it is pruned
        return super().matmul(x, name, tensor, bias)


class PromptBuilder(DecoderBuilder):
    """A decoder without an output head."""

    def head(self, norm: str) -> None:
        pass


def write_prompt_graph(plain: Path, config: DecoderConfig, load: LoadTensor, path: Path, weights: Path) -> None:
    """Write the graph that reads prompts to `path`, beside `plain`; `weights` gets what that one has not stored.

    `load` gives tensors by Hugging Face name: matrices with a scale for each row, all others as `plain` has them.
    """
    with GraphBuilder(weights, StoredWeights(plain)) as graph:
        builder = PromptBuilder(graph, config, load, PromptLinearBuilder)
        architecture_for(config.model_type).forward(builder)
        graph.prune()
        graph.save(path, name=config.model_type)
