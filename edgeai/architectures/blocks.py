"""What architectures are written with: one definition that is run on a graph builder and on plain numpy.

`DecoderBuilder` (decoder.py) writes onnxruntime's fused operators, `ReferenceDecoder` (reference.py) computes the same
in the most obvious way. They share nothing but this interface and the configuration. All `name`s are those of tensors
of the checkpoint, without `.weight` and `.bias`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from edgeai.architectures.config import DecoderConfig
from edgeai.sources.weights import Tensor

LoadTensor = Callable[[str], Tensor]
Value = TypeVar("Value")  # activations [..., features]: a name in the graph, or an array
QKNorm = Literal["head", "projection"]  # what the norms of q and k span


class Blocks(Protocol[Value]):
    """A residual stream, and what reads it and adds to it."""

    config: DecoderConfig

    def embed(self) -> None:
        """Start the residual stream with the embeddings of the input tokens, times the embedding multiplier."""

    def stream(self) -> Value:
        """The residual stream as it is, for what is not normed first."""

    def norm(self, name: str, x: Value | None = None) -> Value:
        """RMS norm (Zhang and Sennrich 2019) of the residual stream, or of `x`."""

    def add(self, x: Value) -> None:
        """Add to the residual stream, times the residual multiplier."""

    def attention(self, x: Value, layer: int, at: str, *, fused: bool = False, norm: QKNorm | None = None) -> Value:
        """Causal grouped-query attention of `x` with the projections q_proj, k_proj, v_proj and o_proj below `at`.

        `fused`: the first three are one matrix, qkv_proj. `norm`: q_norm and k_norm come before the rotation.
        """

    def gated_mlp(self, x: Value, at: str, *, fused: bool = False) -> Value:
        """``down_proj(activation(gate_proj(x)) * up_proj(x))`` (Shazeer 2020) with the projections below `at`.

        `fused`: the first two are one matrix, gate_up_proj.
        """

    def mixture(self, x: Value, layer: int, at: str) -> Value:
        """The MLPs of the layer's best experts for each token, weighted by their shares.

        The router is `gate` below `at`, expert N has gate_proj, up_proj and down_proj below `experts.N`.
        """

    def head(self, norm: str) -> None:
        """End with a norm of the residual stream and the logits."""
