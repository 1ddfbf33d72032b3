"""A decoder's shape, read from the keys of Hugging Face's `config.json`, every one checked.

Here is what architectures have in common. Each architecture's own file reads what it adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgeai.architectures.keys import Keys
from edgeai.architectures.rope import Rope, context_lengths, read_rope
from edgeai.errors import InvalidInput, SourceError, UnsupportedModel

ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of experts (Shazeer et al. 2017): every token goes through the few that a router likes best."""

    num_experts: int
    experts_per_token: int
    intermediate_size: int  # of each expert
    normalized: bool  # whether the shares of the chosen experts add up to one; else they are those among all experts


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What may differ from layer to layer."""

    rope: Rope | None  # None: no position embedding (NoPE)
    window: int | None = None  # tokens that a token attends to, itself included; None: all before it
    mixture: Mixture | None = None  # None: one MLP for all tokens


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes and constants of a decoder-only transformer."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context_length: int  # positions the package is made for
    norm_epsilon: float
    tied_embeddings: bool
    activation: str  # one of ACTIVATIONS
    layers: tuple[LayerConfig, ...]
    attention_scale: float  # on the scores q · k
    qkv_bias: bool = False
    output_bias: bool = False  # of the attention's output projection
    mlp_bias: bool = False
    norm_offset: float = 0.0  # norms multiply with offset + weight
    attention_softcap: float | None = None  # scores become cap * tanh(score / cap)
    logit_softcap: float | None = None
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0  # on what a block adds to the residual stream
    logit_multiplier: float = 1.0

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_size


def read_config(keys: Keys, *, interleaved: bool = False, partial: bool = False) -> DecoderConfig:
    """Parse and check what all architectures share.

    `interleaved` is the kind of rotation; `partial`: whether the architecture may rotate a part of each head.

    Raises:
        SourceError: a key is missing or has an impossible value.
        UnsupportedModel: the configuration asks for something the shared blocks do not have.
        InvalidInput: the context that was asked for is longer than the model is good for.
    """
    hidden, heads = keys.number("hidden_size", int), keys.number("num_attention_heads", int)
    kv_heads = keys.number("num_key_value_heads", int, heads)
    head_size = keys.number("head_dim", int, hidden // heads)
    if heads % kv_heads:
        raise SourceError(f"config: {heads} attention heads do not divide among {kv_heads} KV heads")
    if head_size % 16:
        raise UnsupportedModel(f"config: head size {head_size} is not a multiple of 16", "use another model")
    rotated = int(head_size * keys.number("partial_rotary_factor", float, 1.0))
    if rotated != head_size and not partial:
        raise UnsupportedModel(
            f"config: partial_rotary_factor is not supported for {keys.word('model_type', '')}", "use another model"
        )
    context = _context_length(keys)
    layer = LayerConfig(read_rope(keys, rotated, interleaved=interleaved))
    return DecoderConfig(
        model_type=keys.word("model_type", ""),
        vocab_size=keys.number("vocab_size", int),
        hidden_size=hidden,
        intermediate_size=keys.number("intermediate_size", int),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        context_length=context,
        norm_epsilon=keys.number("rms_norm_eps", float, 1e-6),
        tied_embeddings=keys.flag("tie_word_embeddings"),
        activation=_activation(keys),
        layers=(layer,) * keys.number("num_hidden_layers", int),
        attention_scale=head_size**-0.5,
    )


def with_windows(config: DecoderConfig, window: int | None, sliding: Iterable[bool]) -> DecoderConfig:
    """The configuration with a window in those layers that slide."""
    if window is None or window >= config.context_length:
        return config
    pairs = zip(config.layers, sliding, strict=True)
    return replace(config, layers=tuple(replace(layer, window=window if slides else None) for layer, slides in pairs))


def sliding_layers(keys: Keys, default: Sequence[bool]) -> Sequence[bool]:
    """Which layers attend to a window only, by `layer_types` or else by the architecture's pattern."""
    types = keys.series("layer_types", len(default))
    if types is None:
        return default
    for kind in types:
        if kind not in LAYER_TYPES:
            raise UnsupportedModel(
                f"config: layer type {kind!r} is not supported", f"supported: {', '.join(LAYER_TYPES)}"
            )
    return [kind == "sliding_attention" for kind in types]


def _context_length(keys: Keys) -> int:
    own, longest = context_lengths(keys)
    if keys.context is None:
        return own
    if not 1 <= keys.context <= longest:
        raise InvalidInput(
            f"a context of {keys.context} tokens is not possible, the model is good for {longest}",
            f"ask for at most {longest}",
            param="context",
        )
    return keys.context


def _activation(keys: Keys) -> str:
    name = keys.word("hidden_activation", keys.word("hidden_act", "silu"))
    if name not in ACTIVATIONS:
        known = " and ".join(repr(known) for known in ACTIVATIONS)
        raise UnsupportedModel(f"config: hidden_act {name!r} is not supported, only {known} are", "use another model")
    return name
