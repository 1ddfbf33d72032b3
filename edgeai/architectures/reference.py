"""A plain numpy decoder: the oracle every graph is compared with. Slow, obvious, one tensor in memory at a time.

It shares no code with the graph but the configuration: products are float32 matrix products with dequantized weights,
attention is written out with a causal mask.

It is also what calibration is built on, by subclassing. Four methods are seams:

    project(x, name)        every product with a weight matrix, but for the output head's and routers' (which stay as
                            they are); `name` is the checkpoint's own, with `.weight`, and x [tokens, in_features].
                            Override it to collect activations or to replace weights on the fly; matrices come in the
                            order of the layers. An expert sees the tokens that chose it, which may be none.
    shares(x, layer, name)  what a router gives every expert of a token
    project_rows(...)       the output head's products, a slice of the vocabulary at a time
    attend(q, k, v, layer)  scores, softcap, mask, softmax and values of one segment

Several independent sequences may be run at once, concatenated along the tokens: `segments` are their lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.blocks import LoadTensor, QKNorm
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.rope import Rope

Floats = NDArray[np.float32]
HEAD_ROWS = 8192  # rows of the output head that are in memory at once
EMBEDDINGS = "model.embed_tokens.weight"


class ReferenceDecoder:
    """Runs token ids [tokens] through a decoder.

    `hidden` [tokens, hidden_size] is the residual stream, and after the last block the input of the output head.
    """

    def __init__(
        self, config: DecoderConfig, load: LoadTensor, ids: Sequence[int], segments: Sequence[int] | None = None
    ) -> None:
        self.config = config
        self.load = load
        self.ids = np.asarray(ids, np.int64)
        self.segments = list(segments or [len(ids)])
        if sum(self.segments) != len(ids):
            raise ValueError(f"segments of {sum(self.segments)} tokens do not cover {len(ids)}")
        self.positions = np.concatenate([np.arange(length) for length in self.segments])
        self.hidden: Floats = np.zeros((len(ids), config.hidden_size), np.float32)

    def embed(self) -> None:
        table = self.load(EMBEDDINGS)
        unique, index = np.unique(self.ids, return_inverse=True)
        self.hidden = table.take(unique).dequantize()[index] * np.float32(self.config.embedding_multiplier)

    def stream(self) -> Floats:
        return self.hidden

    def norm(self, name: str, x: Floats | None = None) -> Floats:
        x = self.hidden if x is None else x
        mean_square = np.mean(np.square(x, dtype=np.float64), axis=-1, keepdims=True)
        scaled = x / np.sqrt(mean_square + self.config.norm_epsilon)
        gain = self.config.norm_offset + self._vector(f"{name}.weight")
        normed: Floats = (scaled * gain).astype(np.float32)
        return normed

    def add(self, x: Floats) -> None:
        self.hidden = self.hidden + x * np.float32(self.config.residual_multiplier)

    def project(self, x: Floats, name: str) -> Floats:
        """``x @ W.T`` for x [tokens, in_features] and the matrix `name` [out_features, in_features]."""
        product: Floats = x @ self.load(name).dequantize().T
        return product

    def linear(self, x: Floats, name: str, *, bias: bool = False) -> Floats:
        product = self.project(x, f"{name}.weight")
        return product + self._vector(f"{name}.bias") if bias else product

    def attention(self, x: Floats, layer: int, at: str, *, fused: bool = False, norm: QKNorm | None = None) -> Floats:
        config = self.config
        q, k, v = self._qkv(x, at, fused)
        if norm == "projection":
            q, k = self.norm(f"{at}.q_norm", q), self.norm(f"{at}.k_norm", k)
        heads = [self._heads(q), self._heads(k), self._heads(v)]
        if norm == "head":
            heads[:2] = self.norm(f"{at}.q_norm", heads[0]), self.norm(f"{at}.k_norm", heads[1])
        rope = config.layers[layer].rope
        if rope is not None:
            heads[:2] = self._rotate(heads[0], rope), self._rotate(heads[1], rope)
        q, k, v = heads
        attended = np.empty_like(q)
        stop = 0
        for length in self.segments:
            part = slice(stop, stop := stop + length)
            attended[:, part] = self.attend(q[:, part], k[:, part], v[:, part], layer)
        return self.linear(attended.swapaxes(0, 1).reshape(len(x), -1), f"{at}.o_proj", bias=config.output_bias)

    def attend(self, q: Floats, k: Floats, v: Floats, layer: int) -> Floats:
        """Attention proper: q [heads, tokens, head_size], k and v [kv_heads, tokens, head_size] → like q."""
        config = self.config
        group = config.num_heads // config.num_kv_heads
        k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
        scores = q @ k.swapaxes(1, 2) * np.float32(config.attention_scale)
        if config.attention_softcap is not None:
            scores = softcap(scores, config.attention_softcap)
        at = np.arange(q.shape[1])
        distance = at[:, None] - at  # from key to query
        hidden = distance < 0
        window = config.layers[layer].window
        if window is not None:
            hidden |= distance >= window
        scores[:, hidden] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended: Floats = weights @ v
        return attended

    def gated_mlp(self, x: Floats, at: str, *, fused: bool = False) -> Floats:
        bias = self.config.mlp_bias
        if fused:
            gate, up = np.split(self.linear(x, f"{at}.gate_up_proj", bias=bias), 2, axis=-1)
        else:
            gate, up = (self.linear(x, f"{at}.{part}_proj", bias=bias) for part in ("gate", "up"))
        activated = activate(self.config.activation, gate) * up
        return self.linear(activated.astype(np.float32), f"{at}.down_proj", bias=bias)

    def mixture(self, x: Floats, layer: int, at: str) -> Floats:
        shares = self.shares(x, layer, f"{at}.gate.weight")
        mixed = np.zeros_like(x)
        for expert in range(shares.shape[1]):
            chosen = np.flatnonzero(shares[:, expert])
            mixed[chosen] += shares[chosen, expert, None] * self.gated_mlp(x[chosen], f"{at}.experts.{expert}")
        return mixed

    def head(self, norm: str) -> None:
        self.hidden = self.norm(norm)

    def logits(self) -> Iterator[Floats]:
        """Logits as slices [tokens, part of the vocabulary], first to last, to keep the float head out of memory."""
        config = self.config
        name = EMBEDDINGS if config.tied_embeddings else "lm_head.weight"
        for start in range(0, config.vocab_size, HEAD_ROWS):
            logits = self.project_rows(self.hidden, name, start, start + HEAD_ROWS)
            logits = logits * np.float32(config.logit_multiplier)
            yield logits if config.logit_softcap is None else softcap(logits, config.logit_softcap)

    def project_rows(self, x: Floats, name: str, start: int, stop: int) -> Floats:
        """`project` with some rows of a matrix."""
        product: Floats = x @ self.load(name).rows(start, stop).dequantize().T
        return product

    def shares(self, x: Floats, layer: int, name: str) -> Floats:
        """What each expert contributes to each token [tokens, num_experts]: zero for those that are not chosen."""
        mixture = self.config.layers[layer].mixture
        if mixture is None:
            raise ValueError(f"layer {layer} has no mixture of experts")
        scores = x @ self.load(name).dequantize().T
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        others = np.argsort(-shares, axis=-1, kind="stable")[:, mixture.experts_per_token :]
        np.put_along_axis(shares, others, 0, axis=-1)
        if mixture.normalized:
            shares /= shares.sum(axis=-1, keepdims=True)
        chosen: Floats = shares
        return chosen

    def _qkv(self, x: Floats, at: str, fused: bool) -> list[Floats]:
        config = self.config
        if not fused:
            return [self.linear(x, f"{at}.{part}_proj", bias=config.qkv_bias) for part in "qkv"]
        product = self.linear(x, f"{at}.qkv_proj", bias=config.qkv_bias)
        return np.split(product, [config.query_size, config.query_size + config.kv_size], axis=-1)

    def _heads(self, x: Floats) -> Floats:
        """[tokens, heads * head_size] → [heads, tokens, head_size]."""
        return x.reshape(len(x), -1, self.config.head_size).swapaxes(0, 1)

    def _rotate(self, x: Floats, rope: Rope) -> Floats:
        """Rotate the first values of every head [heads, tokens, head_size]."""
        angles = np.outer(self.positions, rope.frequencies)
        cos, sin = np.cos(angles) * rope.factor, np.sin(angles) * rope.factor
        half = rope.size // 2
        rotated = x.astype(np.float64)
        at = (
            (slice(0, rope.size, 2), slice(1, rope.size, 2))
            if rope.interleaved
            else (slice(half), slice(half, 2 * half))
        )
        first, second = x[..., at[0]], x[..., at[1]]
        rotated[..., at[0]] = first * cos - second * sin
        rotated[..., at[1]] = second * cos + first * sin
        return rotated.astype(np.float32)

    def _vector(self, name: str) -> Floats:
        return self.load(name).dequantize()


def softcap(x: Floats, cap: float) -> Floats:
    """``cap * tanh(x / cap)``: about x where it is small, never beyond the cap (Gemma 2)."""
    capped: Floats = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped


def activate(name: str, x: Floats) -> Floats:
    """silu, ``x * sigmoid(x)``, or the tanh approximation of GELU (Hendrycks and Gimpel 2016)."""
    if name == "silu":
        with np.errstate(over="ignore"):  # exp(-x) may overflow, and the quotient is then zero as it should be
            silu: Floats = x / (1 + np.exp(-x))
        return silu
    gelu: Floats = 0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)))
    return gelu
