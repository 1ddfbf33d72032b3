"""The blocks that decoder-only transformers share, written with onnxruntime's fused operators.

The graph every architecture makes has the same interface, which is all the engine knows:

inputs
    input_ids              int64 [rows, new]
    seqlens_k              int32 [rows]          tokens in the cache after the run, minus one
    query_seqlens          int32 [rows]          how many of `new` are real; the rest is right padding
    total_sequence_length  int32 []              largest number of tokens in the cache after the run
    logit_index            int64 [n]             positions of rows * new whose logits are wanted
    past.N.key/value       float [rows, kv_heads, capacity, head_size]
outputs
    logits                 float [1, n, vocab_size]
    present.N.key/value    the same memory as past, updated in place
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.embedding import Embedding, write_embedding
from edgeai.architectures.graph import MICROSOFT, GraphBuilder
from edgeai.architectures.linear import LinearBuilder, grid_of, stack
from edgeai.errors import SourceError
from edgeai.sources.weights import Tensor

LoadTensor = Callable[[str], Tensor]


def rope_tables(config: DecoderConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines [context_length, head_size / 2] of rotary position embedding (Su et al. 2021)."""
    exponents = np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    angles = np.outer(np.arange(config.context_length, dtype=np.float64), config.rope_theta**-exponents)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


class DecoderBuilder:
    """Builds a decoder layer by layer; architectures call its blocks in their own order."""

    def __init__(self, graph: GraphBuilder, config: DecoderConfig, load: LoadTensor) -> None:
        self.graph = graph
        self.config = config
        self.load = load
        self.linear = LinearBuilder(graph)
        self._declare_inputs()
        cos, sin = rope_tables(config)
        self._rope = (graph.weight("rope.cos", cos), graph.weight("rope.sin", sin))

    def embed(self) -> tuple[str, Embedding]:
        """Hidden states [rows, new, hidden_size] of the input tokens, and the table for a tied head."""
        table = self.load("model.embed_tokens.weight")
        self._expect("model.embed_tokens.weight", table, self.config.vocab_size, self.config.hidden_size)
        embedding = write_embedding(self.linear, table)
        return embedding.lookup("input_ids"), embedding

    def norm(self, x: str, name: str, skip: str | None = None) -> tuple[str, str]:
        """RMS norm (Zhang and Sennrich 2019) of x, or of x + skip. Returns (normed, the sum that was normed)."""
        gain = self.graph.weight(name, self._vector(name))
        epsilon = self.config.norm_epsilon
        if skip is None:
            return self.graph.op("SimplifiedLayerNormalization", [x, gain], axis=-1, epsilon=epsilon), x
        normed, total = self.graph.fresh("normed"), self.graph.fresh("residual")
        self.graph.ops(
            "SkipSimplifiedLayerNormalization",
            [x, skip, gain],
            [normed, "", "", total],
            domain=MICROSOFT,
            epsilon=epsilon,
        )
        return normed, total

    def attention(self, x: str, layer: int, names: Sequence[str]) -> str:
        """Grouped-query attention with rotary positions over the KV cache; `names` of the q, k and v projections."""
        sizes = [self.config.query_size, self.config.kv_size, self.config.kv_size]
        parts = self.projections(x, f"layer.{layer}.qkv", names, sizes)
        q, k, v = (parts[0], "", "") if len(parts) == 1 else parts
        attended = self.graph.fresh("attention")
        past = [self._cache("past", layer, part, self.graph.input) for part in ("key", "value")]
        present = [self._cache("present", layer, part, self.graph.output) for part in ("key", "value")]
        optional = [""] * 7  # position_ids, bias, sink, KV scales and QK norms
        self.graph.ops(
            "GroupQueryAttention",
            [q, k, v, *past, "seqlens_k", "total_sequence_length", *self._rope, *optional, "query_seqlens"],
            [attended, *present],
            domain=MICROSOFT,
            num_heads=self.config.num_heads,
            kv_num_heads=self.config.num_kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return attended

    def projections(self, x: str, name: str, names: Sequence[str], sizes: Sequence[int]) -> list[str]:
        """Products of x with several matrices: one stacked product where they lie on one grid, else one each."""
        tensors = [self.load(part) for part in names]
        for part, tensor, size in zip(names, tensors, sizes, strict=True):
            self._expect(part, tensor, size, self.config.hidden_size)
        if len({grid_of(tensor) for tensor in tensors}) == 1:
            return [self.linear.matmul(x, name, stack(tensors))]
        return [self.linear.matmul(x, part, tensor) for part, tensor in zip(names, tensors, strict=True)]

    def project(self, x: str, name: str, rows: int, cols: int) -> str:
        tensor = self.load(name)
        self._expect(name, tensor, rows, cols)
        return self.linear.matmul(x, name, tensor)

    def gated_mlp(self, x: str, layer: int, gate: str, up: str, down: str) -> str:
        """``down(silu(gate(x)) * up(x))`` (SwiGLU, Shazeer 2020)."""
        size = self.config.intermediate_size
        parts = self.projections(x, f"layer.{layer}.gate_up", [gate, up], [size, size])
        if len(parts) == 1:
            halves = [self.graph.fresh("gate"), self.graph.fresh("up")]
            parts = list(self.graph.ops("Split", parts, halves, axis=-1, num_outputs=2))
        silu = self.graph.op("QuickGelu", [parts[0]], domain=MICROSOFT, alpha=1.0)  # x * sigmoid(alpha * x)
        return self.project(self.graph.op("Mul", [silu, parts[1]]), down, self.config.hidden_size, size)

    def select(self, x: str, width: int) -> str:
        """Only the positions whose logits are wanted: [rows, new, width] → [1, n, width]."""
        flat = self.graph.op("Reshape", [x, self.graph.constant(np.array([-1, width]))])
        chosen = self.graph.op("Gather", [flat, "logit_index"], axis=0)
        return self.graph.op("Unsqueeze", [chosen, self.graph.constant(np.array([0]))])

    def logits(self, x: str, embedding: Embedding) -> None:
        """The output head: the tied token table, or a matrix of its own."""
        config = self.config
        if config.tied_embeddings:
            product = embedding.logits(x)
        else:
            product = self.project(x, "lm_head.weight", config.vocab_size, config.hidden_size)
        self.graph.op("Identity", [product], output="logits")
        self.graph.output("logits", TensorProto.FLOAT, [1, "n", config.vocab_size])

    def _declare_inputs(self) -> None:
        graph = self.graph
        graph.input("input_ids", TensorProto.INT64, ["rows", "new"])
        graph.input("seqlens_k", TensorProto.INT32, ["rows"])
        graph.input("query_seqlens", TensorProto.INT32, ["rows"])
        graph.input("total_sequence_length", TensorProto.INT32, [])
        graph.input("logit_index", TensorProto.INT64, ["n"])

    def _cache(self, stem: str, layer: int, part: str, declare: Callable[[str, int, Sequence[int | str]], str]) -> str:
        shape: list[int | str] = ["rows", self.config.num_kv_heads, "capacity", self.config.head_size]
        return declare(f"{stem}.{layer}.{part}", TensorProto.FLOAT, shape)

    def _vector(self, name: str) -> NDArray[np.float32]:
        tensor = self.load(name)
        self._expect(name, tensor, self.config.hidden_size)
        return tensor.dequantize()

    @staticmethod
    def _expect(name: str, tensor: Tensor, *shape: int) -> None:
        if tensor.shape != shape:
            raise SourceError(f"{name} has shape {list(tensor.shape)} where the config asks for {list(shape)}")
