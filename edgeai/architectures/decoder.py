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
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgeai.architectures.adapters import Product
from edgeai.architectures.blocks import LoadTensor, QKNorm
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.embedding import Embedding, write_embedding
from edgeai.architectures.experts import Experts, write_experts
from edgeai.architectures.graph import MICROSOFT, GraphBuilder
from edgeai.architectures.linear import LinearBuilder, grid_of, stack
from edgeai.architectures.linear_int8 import Int8Table
from edgeai.architectures.rope import Rope
from edgeai.errors import SourceError, UnsupportedModel
from edgeai.package.adapter_sites import AdapterSite
from edgeai.sources.weights import Tensor

Floats = NDArray[np.float32]
STRIDE = 128  # positions between two rows of the coarse rotary tables
PARTS = ("cos", "sin")


def rope_tables(rope: Rope, positions: int, stride: int = 1) -> tuple[Floats, Floats]:
    """Cosines and sines [positions / stride, rotated pairs] of every `stride`-th position."""
    angles = np.outer(np.arange(0, positions, stride, dtype=np.float64), rope.frequencies)
    return (np.cos(angles) * rope.factor).astype(np.float32), (np.sin(angles) * rope.factor).astype(np.float32)


class DecoderBuilder:
    """Builds a decoder layer by layer; architectures call its blocks in their own order (see blocks.py).

    The residual stream is `_hidden`, plus `_branch` where that is not None: an addition waits for the norm that it can
    be fused with. Past the last attention only positions whose logits are wanted go on.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        config: DecoderConfig,
        load: LoadTensor,
        linear: type[LinearBuilder] = LinearBuilder,
    ) -> None:
        self.graph = graph
        self.config = config
        self.load = load
        self.linear = linear(graph)
        self.linear.positions = "all"
        self.products: list[Product] = []  # what adapters may add to
        self._hidden = ""
        self._branch: str | None = None
        self._embedding: Embedding | Int8Table | None = None
        self._declare_inputs()
        self._ropes = {rope: self._write_rope(rope, count) for count, rope in enumerate(self._distinct_ropes())}

    def embed(self) -> None:
        config = self.config
        table = self._matrix("model.embed_tokens", config.vocab_size, config.hidden_size)
        self._embedding = write_embedding(self.linear, table)
        self._hidden = self._times(self._embedding.lookup("input_ids"), config.embedding_multiplier)

    def stream(self) -> str:
        if self._branch is not None:
            self._hidden, self._branch = self.graph.op("Add", [self._hidden, self._branch]), None
        return self._hidden

    def norm(self, name: str, x: str | None = None) -> str:
        gain = self._gain(name, self.config.hidden_size)
        if x is not None:
            return self._simple_norm(x, gain)
        return self._stream_norm(gain)

    def add(self, x: str) -> None:
        self.stream()  # two additions in a row cannot both wait
        self._branch = self._times(x, self.config.residual_multiplier)

    def attention(self, x: str, layer: int, at: str, *, fused: bool = False, norm: QKNorm | None = None) -> str:
        config = self.config
        sizes = [config.query_size, config.kv_size, config.kv_size]
        names = [f"{at}.qkv_proj"] if fused else [f"{at}.{part}_proj" for part in "qkv"]
        parts = self._products(x, f"{at}.qkv", names, [sum(sizes)] if fused else sizes, config.qkv_bias)
        if norm is not None:
            q, k, v = parts if len(parts) == 3 else self._split(parts[0], sizes)
            q = self._qk_norm(q, f"{at}.q_norm", norm, config.query_size)
            parts = [q, self._qk_norm(k, f"{at}.k_norm", norm, config.kv_size), v]
        attended = self._attend(parts, layer)
        if layer == config.num_layers - 1:
            attended = self.select(attended, config.query_size)
            self._hidden = self.select(self.stream(), config.hidden_size)
            self.linear.positions = "wanted"
        return self.project(attended, f"{at}.o_proj", config.hidden_size, config.query_size, bias=config.output_bias)

    def gated_mlp(self, x: str, at: str, *, fused: bool = False) -> str:
        config, size = self.config, self.config.intermediate_size
        names = [f"{at}.gate_up_proj"] if fused else [f"{at}.gate_proj", f"{at}.up_proj"]
        sizes = [2 * size] if fused else [size, size]
        parts = self._products(x, f"{at}.gate_up", names, sizes, config.mlp_bias)
        gate, up = parts if len(parts) == 2 else self._split(parts[0], [size, size])
        product = self.graph.op("Mul", [self._activate(gate), up])
        return self.project(product, f"{at}.down_proj", config.hidden_size, size, bias=config.mlp_bias)

    def mixture(self, x: str, layer: int, at: str) -> str:
        mixture, hidden = self.config.layers[layer].mixture, self.config.hidden_size
        if mixture is None:
            raise ValueError(f"layer {layer} has no mixture of experts")
        if self.config.activation != "silu":
            raise UnsupportedModel(f"experts with {self.config.activation!r} are not supported", "only silu is")
        gate = self._matrix(f"{at}.gate", mixture.num_experts, hidden)
        router = self.linear.matmul(x, f"{at}.gate.weight", gate)  # no place for adapters, as experts are none
        numbers, inner = range(mixture.num_experts), mixture.intermediate_size
        gates = [self._matrix(f"{at}.experts.{expert}.gate_proj", inner, hidden) for expert in numbers]
        ups = [self._matrix(f"{at}.experts.{expert}.up_proj", inner, hidden) for expert in numbers]
        downs = [self._matrix(f"{at}.experts.{expert}.down_proj", hidden, inner) for expert in numbers]
        return write_experts(self.linear, x, router, Experts(f"{at}.experts", mixture, gates, ups, downs))

    def head(self, norm: str) -> None:
        """The output head: the tied token table, or a matrix of its own."""
        config, graph = self.config, self.graph
        gain = self._gain(norm, config.hidden_size, config.logit_multiplier)
        x = self._stream_norm(gain)
        if not config.tied_embeddings:
            logits = self.project(x, "lm_head", config.vocab_size, config.hidden_size)
        elif self._embedding is None:
            raise ValueError("a tied head needs the embeddings first")
        else:
            logits = self._embedding.logits(x)
        if config.logit_softcap is not None:
            inner = graph.op("Tanh", [self._times(logits, 1 / config.logit_softcap)])
            logits = self._times(inner, config.logit_softcap)
        graph.op("Identity", [logits], output="logits")
        graph.output("logits", TensorProto.FLOAT, [1, "n", config.vocab_size])

    def project(self, x: str, name: str, rows: int, cols: int, *, bias: bool = False) -> str:
        """``x @ W.T``, plus a bias [rows] where there is one, with the matrix `name`.weight [rows, cols]."""
        return self._product(x, name, [name], [self._matrix(name, rows, cols)], bias)

    def select(self, x: str, width: int) -> str:
        """Only the positions whose logits are wanted: [rows, new, width] → [1, n, width]."""
        flat = self.graph.op("Reshape", [x, self.graph.constant(np.array([-1, width]))])
        chosen = self.graph.op("Gather", [flat, "logit_index"], axis=0)
        return self.graph.op("Unsqueeze", [chosen, self.graph.constant(np.array([0]))])

    def _attend(self, parts: Sequence[str], layer: int) -> str:
        """GroupQueryAttention over the KV cache; `parts` are q, k and v, or all three packed into one."""
        config, own = self.config, self.config.layers[layer]
        q, k, v = (parts[0], "", "") if len(parts) == 1 else parts
        past = [self._cache("past", layer, part, self.graph.input) for part in ("key", "value")]
        present = [self._cache("present", layer, part, self.graph.output) for part in ("key", "value")]
        rope = ("", "") if own.rope is None else self._ropes[own.rope]
        optional = [""] * 7  # position_ids, bias, sink, KV scales and QK norms
        attended = self.graph.fresh("attention")
        self.graph.ops(
            "GroupQueryAttention",
            [q, k, v, *past, "seqlens_k", "total_sequence_length", *rope, *optional, "query_seqlens"],
            [attended, *present],
            domain=MICROSOFT,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            scale=config.attention_scale,
            softcap=config.attention_softcap or 0.0,
            local_window_size=own.window or -1,
            do_rotary=int(own.rope is not None),
            rotary_interleaved=int(own.rope is not None and own.rope.interleaved),
        )
        return attended

    def _products(self, x: str, stem: str, names: Sequence[str], sizes: Sequence[int], bias: bool) -> list[str]:
        """Products of x with several matrices: one stacked product where they lie on one grid, else one each."""
        matrices = [self._matrix(name, size, self.config.hidden_size) for name, size in zip(names, sizes, strict=True)]
        if len({grid_of(matrix) for matrix in matrices}) == 1:
            return [self._product(x, stem, names, matrices, bias)]
        pairs = zip(names, matrices, strict=True)
        return [self._product(x, name, [name], [matrix], bias) for name, matrix in pairs]

    def _product(self, x: str, stem: str, names: Sequence[str], matrices: Sequence[Tensor], bias: bool) -> str:
        vector = None
        if bias:
            parts = [self._vector(f"{name}.bias", own.shape[0]) for name, own in zip(names, matrices, strict=True)]
            vector = self.graph.weight(f"{stem}.bias", np.concatenate(parts))
        y = self.linear.matmul(x, f"{stem}.weight", stack(matrices), vector)
        sizes = tuple(own.shape[0] for own in matrices)
        self.products.append(Product(x, y, AdapterSite(modules=tuple(names), sizes=sizes, inputs=matrices[0].shape[1])))
        return y

    def _qk_norm(self, x: str, name: str, span: QKNorm, size: int) -> str:
        """Norm of q or k [rows, new, size] before the rotation; GroupQueryAttention's own exists on CUDA only."""
        graph, head = self.graph, self.config.head_size
        if span == "projection":
            return self._simple_norm(x, self._gain(name, size))
        heads = graph.op("Reshape", [x, graph.constant(np.array([0, 0, -1, head]))])
        normed = self._simple_norm(heads, self._gain(name, head))
        return graph.op("Reshape", [normed, graph.constant(np.array([0, 0, size]))])

    def _simple_norm(self, x: str, gain: str) -> str:
        epsilon = self.config.norm_epsilon
        return self.graph.op("SimplifiedLayerNormalization", [x, gain], axis=-1, epsilon=epsilon)

    def _stream_norm(self, gain: str) -> str:
        """Norm of the residual stream; an addition that waits becomes part of it."""
        if self._branch is None:
            return self._simple_norm(self._hidden, gain)
        normed, total = self.graph.fresh("normed"), self.graph.fresh("residual")
        self.graph.ops(
            "SkipSimplifiedLayerNormalization",
            [self._hidden, self._branch, gain],
            [normed, "", "", total],
            domain=MICROSOFT,
            epsilon=self.config.norm_epsilon,
        )
        self._hidden, self._branch = total, None
        return normed

    def _gain(self, name: str, size: int, multiplier: float = 1.0) -> str:
        gain = (self.config.norm_offset + self._vector(f"{name}.weight", size)) * np.float32(multiplier)
        return self.graph.weight(f"{name}.weight", gain.astype(np.float32))

    def _activate(self, x: str) -> str:
        if self.config.activation == "silu":
            return self.graph.op("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)  # x * sigmoid(alpha * x)
        return self.graph.op("Gelu", [x], approximate="tanh")

    def _times(self, x: str, factor: float) -> str:
        if factor == 1.0:
            return x
        return self.graph.op("Mul", [x, self.graph.constant(np.array(factor, np.float32))])

    def _split(self, x: str, sizes: Sequence[int]) -> list[str]:
        outputs = [self.graph.fresh("part") for _ in sizes]
        return list(self.graph.ops("Split", [x, self.graph.constant(np.array(sizes))], outputs, axis=-1))

    def _distinct_ropes(self) -> list[Rope]:
        return list(dict.fromkeys(layer.rope for layer in self.config.layers if layer.rope is not None))

    def _write_rope(self, rope: Rope, number: int) -> tuple[str, str]:
        """Tables of every position, or what onnxruntime makes them from when it loads the graph.

        A position is a multiple of `STRIDE` and a rest, and the angles of the two add up. That saves 2 MB for 8,192
        positions and heads of 64, and 67 MB for the 131,072 positions of Llama 3.2. Exact to float32's last digits.
        """
        graph, suffix, positions = self.graph, f".{number}" if number else "", self.config.context_length
        if positions <= STRIDE:
            whole = rope_tables(rope, positions)
            return graph.weight(f"rope.cos{suffix}", whole[0]), graph.weight(f"rope.sin{suffix}", whole[1])
        near, far = rope_tables(replace(rope, factor=1.0), STRIDE), rope_tables(rope, positions, STRIDE)
        cos, sin = (graph.weight(f"rope.{part}{suffix}", each) for part, each in zip(PARTS, near, strict=True))
        far_cos, far_sin = (
            graph.weight(f"rope.far_{part}{suffix}", each[:, None]) for part, each in zip(PARTS, far, strict=True)
        )
        return (
            self._whole(graph.op("Sub", [graph.op("Mul", [far_cos, cos]), graph.op("Mul", [far_sin, sin])]), rope),
            self._whole(graph.op("Add", [graph.op("Mul", [far_sin, cos]), graph.op("Mul", [far_cos, sin])]), rope),
        )

    def _whole(self, table: str, rope: Rope) -> str:
        """[positions / STRIDE, STRIDE, pairs] → [positions, pairs]."""
        return self.graph.op("Reshape", [table, self.graph.constant(np.array([-1, len(rope.frequencies)]))])

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

    def _matrix(self, name: str, rows: int, cols: int) -> Tensor:
        return self._checked(f"{name}.weight", rows, cols)

    def _vector(self, name: str, size: int) -> Floats:
        return self._checked(name, size).dequantize()

    def _checked(self, name: str, *shape: int) -> Tensor:
        """A tensor of the checkpoint; `SourceError` when it has another shape than the config says."""
        tensor = self.load(name)
        if tensor.shape != shape:
            raise SourceError(f"{name} has shape {list(tensor.shape)} where the config asks for {list(shape)}")
        return tensor
