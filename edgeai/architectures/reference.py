"""A plain numpy decoder: the oracle every graph is compared with. Slow, obvious, one tensor in memory at a time.

It shares no code with the graph but the configuration: products are float32 matrix products with dequantized weights,
attention is written out with a causal mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.decoder import LoadTensor

Floats = NDArray[np.float32]
HEAD_ROWS = 8192  # rows of the output head that are in memory at once


class ReferenceDecoder:
    """Runs one sequence of token ids [tokens] through a decoder; `hidden` is [tokens, hidden_size]."""

    def __init__(self, config: DecoderConfig, load: LoadTensor, ids: Sequence[int]) -> None:
        self.config = config
        self.load = load
        self.ids = np.asarray(ids, np.int64)
        self.hidden: Floats = np.zeros((len(ids), config.hidden_size), np.float32)

    def embed(self) -> None:
        table = self.load("model.embed_tokens.weight").dequantize()
        self.hidden = table[self.ids]

    def norm(self, x: Floats, name: str) -> Floats:
        mean_square = np.mean(np.square(x, dtype=np.float64), axis=-1, keepdims=True)
        scaled = x / np.sqrt(mean_square + self.config.norm_epsilon)
        normed: Floats = (scaled * self.load(name).dequantize()).astype(np.float32)
        return normed

    def project(self, x: Floats, name: str) -> Floats:
        product: Floats = x @ self.load(name).dequantize().T
        return product

    def attention(self, x: Floats, q_name: str, k_name: str, v_name: str) -> Floats:
        config = self.config
        q = self._rotate(self._heads(self.project(x, q_name), config.num_heads))
        k = self._rotate(self._heads(self.project(x, k_name), config.num_kv_heads))
        v = self._heads(self.project(x, v_name), config.num_kv_heads)
        group = config.num_heads // config.num_kv_heads
        k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
        scores = q @ k.swapaxes(1, 2) / np.float32(np.sqrt(config.head_size))
        future = np.triu(np.ones(scores.shape[1:], bool), k=1)
        scores[:, future] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended: Floats = (weights @ v).swapaxes(0, 1).reshape(len(x), -1)
        return attended

    def gated_mlp(self, x: Floats, at: str) -> Floats:
        gate = self.project(x, f"{at}.gate_proj.weight")
        activated = gate / (1 + np.exp(-gate)) * self.project(x, f"{at}.up_proj.weight")
        return self.project(activated.astype(np.float32), f"{at}.down_proj.weight")

    def logits(self) -> Iterator[Floats]:
        """Logits as slices [tokens, part of the vocabulary], first to last, to keep the float head out of memory."""
        name = "model.embed_tokens.weight" if self.config.tied_embeddings else "lm_head.weight"
        head = self.load(name)
        for start in range(0, self.config.vocab_size, HEAD_ROWS):
            yield self.hidden @ head.rows(start, start + HEAD_ROWS).dequantize().T

    def _heads(self, x: Floats, heads: int) -> Floats:
        """[tokens, heads * head_size] → [heads, tokens, head_size]."""
        return x.reshape(len(x), heads, self.config.head_size).swapaxes(0, 1)

    def _rotate(self, x: Floats) -> Floats:
        half = self.config.head_size // 2
        frequencies = self.config.rope_theta ** (-np.arange(half) / half)
        angles = np.outer(np.arange(x.shape[1]), frequencies)
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(np.float32)
