"""Every feature of every architecture's tiny configuration shows in its logits: tests on them would see it missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgeai.architectures.config import DecoderConfig, LayerConfig
from edgeai.architectures.keys import Keys
from edgeai.architectures.registry import reference_logits
from edgeai.architectures.rope import read_rope
from tests.architectures.graphs import random_ids
from tests.fixtures.architectures import CASES, Case, RandomCheckpoint

VISIBLE = 0.02  # twenty times what graphs may differ from transformers


def layers(change: Callable[[LayerConfig], LayerConfig]) -> Callable[[DecoderConfig], DecoderConfig]:
    return lambda config: replace(config, layers=tuple(change(layer) for layer in config.layers))


def everywhere(config: DecoderConfig) -> DecoderConfig:
    """The rotation of the last layer that has one, in all layers."""
    last = [layer.rope for layer in config.layers if layer.rope is not None][-1]
    return layers(lambda layer: replace(layer, rope=last))(config)


def unscaled(config: DecoderConfig) -> DecoderConfig:
    def plain(layer: LayerConfig) -> LayerConfig:
        if layer.rope is None:
            return layer
        second = layer.rope.frequencies[1] / layer.rope.frequencies[0]
        own = read_rope(Keys({"rope_theta": second ** -len(layer.rope.frequencies)}), layer.rope.size)
        return replace(layer, rope=replace(layer.rope, frequencies=own.frequencies, factor=1.0))

    return layers(plain)(config)


def neighbours(layer: LayerConfig) -> LayerConfig:
    return layer if layer.rope is None else replace(layer, rope=replace(layer.rope, interleaved=False))


WITHOUT: dict[str, Callable[[DecoderConfig], DecoderConfig]] = {
    "windows": layers(lambda layer: replace(layer, window=None)),
    "one wider": layers(lambda layer: replace(layer, window=layer.window and layer.window + 1)),
    "own rope": everywhere,
    "rope scaling": unscaled,
    "interleaving": layers(neighbours),
    "q, k and v biases": lambda config: replace(config, qkv_bias=False),
    "output bias": lambda config: replace(config, output_bias=False),
    "mlp bias": lambda config: replace(config, mlp_bias=False),
    "norm offset": lambda config: replace(config, norm_offset=0.0),
    "score cap": lambda config: replace(config, attention_softcap=None),
    "logit cap": lambda config: replace(config, logit_softcap=None),
    "scale": lambda config: replace(config, attention_scale=config.head_size**-0.5),
    "embedding multiplier": lambda config: replace(config, embedding_multiplier=1.0),
    "residual multiplier": lambda config: replace(config, residual_multiplier=1.0),
    "logit multiplier": lambda config: replace(config, logit_multiplier=1.0),
    "activation": lambda config: replace(config, activation="silu"),
}


def features(case: Case) -> Iterator[tuple[str, DecoderConfig]]:
    for name, without in WITHOUT.items():
        changed = without(case.decoder)
        scaling = case.config.get("rope_scaling") or {"rope_type": "dynamic"}
        if name == "rope scaling" and scaling.get("rope_type") == "dynamic":  # which is plain within the context
            continue
        if changed != case.decoder:
            yield name, changed


EACH = [
    pytest.param(case, changed, id=f"{case.name}-{name}".replace(" ", "-"))
    for case in CASES
    for name, changed in features(case)
]


@pytest.mark.parametrize(("case", "changed"), EACH)
def test_a_feature_shows(case: Case, changed: DecoderConfig) -> None:
    ids, weights = random_ids(60), RandomCheckpoint(case.decoder)
    difference = reference_logits(changed, weights.load, ids) - reference_logits(case.decoder, weights.load, ids)
    assert np.abs(difference).max() > VISIBLE


def test_every_feature_is_in_some_case() -> None:
    assert {name for case in CASES for name, _ in features(case)} == set(WITHOUT)
