"""Rotary position embedding and the ways its frequencies are stretched for longer contexts.

Every variant comes down to one frequency for each rotated pair of values, and one factor on cosines and sines. Formulas
are those of transformers' `modeling_rope_utils`, which cites:

    default   Su et al. 2021, RoFormer
    linear    position interpolation, Chen et al. 2023
    dynamic   NTK-aware scaling: equals the default up to `max_position_embeddings`, beyond which packages do not go
    llama3    Llama 3.1 (Dubey et al. 2024)
    yarn      Peng et al. 2023
    longrope  Ding et al. 2024; has two sets of factors, chosen by the context length of the package
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.keys import Keys
from edgeai.errors import SourceError, UnsupportedModel

Frequencies = NDArray[np.float64]  # radians a position, one for each rotated pair


@dataclass(frozen=True, slots=True)
class Rope:
    """How the first values of every head are rotated, twice as many as there are frequencies.

    A pair is value i and value i + half of the rotated ones, or two neighbours where `interleaved`.
    """

    frequencies: tuple[float, ...]
    factor: float = 1.0  # on cosines and sines, and so squared on the scores
    interleaved: bool = False

    @property
    def size(self) -> int:
        """Values of a head that are rotated."""
        return 2 * len(self.frequencies)


def read_rope(keys: Keys, size: int, *, interleaved: bool = False) -> Rope:
    """The rotation of heads whose first `size` values are rotated.

    Raises:
        UnsupportedModel: an unknown kind of scaling, or a size that onnxruntime's kernel does not rotate.
        SourceError: a parameter is missing or impossible.
    """
    if size % 16:
        raise UnsupportedModel(
            f"config: {size} values of a head are rotated, which is not a multiple of 16", "use another model"
        )
    plain = keys.number("rope_theta", float, 10000.0) ** -(np.arange(0, size, 2) / size)
    frequencies, factor = KINDS[scaling_kind(keys)](keys, plain)
    return Rope(tuple(frequencies.tolist()), factor, interleaved)


def scaling_kind(keys: Keys) -> str:
    """The key of `KINDS` that a configuration asks for."""
    scaling = keys.section("rope_scaling")
    kind = scaling.word("rope_type", scaling.word("type", "default"))
    if kind not in KINDS:
        raise UnsupportedModel(f"config: rope_scaling {kind!r} is not supported", f"supported: {', '.join(KINDS)}")
    return kind


def context_lengths(keys: Keys) -> tuple[int, int]:
    """The context length of a package by default, and the longest that the model is good for.

    LongRoPE models default to the length they were first trained for: short texts are read best with the short factors.
    """
    trained = keys.number("max_position_embeddings", int)
    kind = scaling_kind(keys)
    if kind in LONGROPE:
        return min(trained, _original_context(keys)), trained
    if kind == "yarn":
        return trained, max(
            trained, int(_original_context(keys) * keys.section("rope_scaling").number("factor", float))
        )
    return trained, trained


def unified(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys `rope_theta` and `rope_scaling` from `rope_parameters`, which transformers 5 writes instead of them.

    Models with local and global layers nest one set of parameters for each kind.
    """
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        return config
    whole = parameters.get("full_attention", parameters)
    local = parameters.get("sliding_attention") or {}
    names = {"rope_theta": whole.get("rope_theta"), "partial_rotary_factor": whole.get("partial_rotary_factor")}
    found = {key: value for key, value in names.items() if value is not None}
    if local.get("rope_theta") is not None:
        found["rope_local_base_freq"] = local["rope_theta"]
    return {**config, **found, "rope_scaling": dict(whole)}


def _plain(_keys: Keys, plain: Frequencies) -> tuple[Frequencies, float]:
    return plain, 1.0


def _linear(keys: Keys, plain: Frequencies) -> tuple[Frequencies, float]:
    return plain / keys.section("rope_scaling").number("factor", float), 1.0


def _llama3(keys: Keys, plain: Frequencies) -> tuple[Frequencies, float]:
    """Fast frequencies stay, slow ones are divided by the factor, those between are blended by turns in the context."""
    scaling = keys.section("rope_scaling")
    low, high = scaling.number("low_freq_factor", float), scaling.number("high_freq_factor", float)
    if low >= high:
        raise SourceError(f"config: rope_scaling has low_freq_factor {low} and high_freq_factor {high}, in this order")
    turns = _original_context(keys) * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return plain * ((1 - kept) / scaling.number("factor", float) + kept), 1.0


def _yarn(keys: Keys, plain: Frequencies) -> tuple[Frequencies, float]:
    """Between the dimensions that turn `beta_fast` and `beta_slow` times, a ramp from kept to interpolated."""
    scaling = keys.section("rope_scaling")
    size, theta = 2 * len(plain), keys.number("rope_theta", float, 10000.0)
    context, factor = _original_context(keys), scaling.number("factor", float)

    def dimension(turns: float) -> float:
        return size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension(scaling.number("beta_fast", float, 32.0))
    high = dimension(scaling.number("beta_slow", float, 1.0))
    if scaling.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    return plain / factor * ramp + plain * (1 - ramp), _yarn_factor(scaling, factor)


def _yarn_factor(scaling: Keys, factor: float) -> float:
    given = scaling.optional("attention_factor", float)
    if given is not None:
        return given
    per_log = 0.1 * math.log(factor) if factor > 1 else 0.0
    mscale, everywhere = scaling.values.get("mscale"), scaling.values.get("mscale_all_dim")
    if mscale and everywhere:
        return (per_log * scaling.number("mscale", float) + 1) / (per_log * scaling.number("mscale_all_dim", float) + 1)
    return per_log + 1


def _longrope(keys: Keys, plain: Frequencies) -> tuple[Frequencies, float]:
    scaling, original = keys.section("rope_scaling"), _original_context(keys)
    context = keys.context or context_lengths(keys)[0]
    name = "long_factor" if context > original else "short_factor"
    factors = np.array(scaling.numbers(name, len(plain)))
    given = scaling.optional("attention_factor", float)
    if given is not None:
        return plain / factors, given
    trained = keys.number("max_position_embeddings", int)
    stretch = scaling.number("factor", float, 1.0) if trained == original else trained / original
    return plain / factors, math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0


def _original_context(keys: Keys) -> int:
    """Context before scaling, which stands in `rope_scaling`; for LongRoPE rather beside it, as in transformers."""
    name, trained = "original_max_position_embeddings", keys.number("max_position_embeddings", int)
    inside = keys.section("rope_scaling").number(name, int, trained)
    return keys.number(name, int, inside) if scaling_kind(keys) in LONGROPE else inside


LONGROPE = ("longrope", "su")
KINDS: Mapping[str, Callable[[Keys, Frequencies], tuple[Frequencies, float]]] = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _plain,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,
}
