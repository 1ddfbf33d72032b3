"""Quantizing a whole model under calibration text: nearer to the float model than rounding, for every architecture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeai.architectures.reference import ReferenceDecoder
from edgeai.architectures.registry import decoder_config, run_reference
from edgeai.build.quantize.grid import Grid, nearest
from edgeai.build.quantize.sequential import QuantizingDecoder, best_shift
from edgeai.progress import silent
from edgeai.sources.weights import BlockTensor, Tensor
from tests.build.quantize.test_compensate import correlated_inputs
from tests.fixtures.tiny import TinySource

SOURCE = TinySource(seed=3)
CONFIG = decoder_config(SOURCE.config)
RNG = np.random.default_rng(0)
SEGMENTS = [RNG.integers(0, 96, 60).tolist() for _ in range(30)]


def quantize(choose: Callable[[str], Grid | None] | None = None) -> tuple[QuantizingDecoder, dict[str, BlockTensor]]:
    kept: dict[str, BlockTensor] = {}
    decoder = QuantizingDecoder(
        CONFIG, SOURCE.load, SEGMENTS, choose=choose or (lambda _: Grid(4)), keep=kept.__setitem__, progress=silent
    )
    run_reference(decoder)
    return decoder, kept


def final_hidden(load: Callable[[str], Tensor], ids: list[int]) -> np.ndarray:
    decoder = ReferenceDecoder(CONFIG, load, ids)
    run_reference(decoder)
    return decoder.hidden


def test_it_is_nearer_than_rounding_on_other_text() -> None:
    _, kept = quantize()
    assert set(kept) == {info.name for info in SOURCE.tensors if len(info.shape) == 2 and "embed" not in info.name}
    ids = np.random.default_rng(99).integers(0, 96, 200).tolist()
    expected = final_hidden(SOURCE.load, ids)

    def rounded(name: str) -> Tensor:
        tensor = SOURCE.load(name)
        return nearest(tensor.dequantize(), Grid(4)) if name in kept else tensor

    plain = np.square(final_hidden(rounded, ids) - expected).sum()
    ours = np.square(final_hidden(lambda name: kept.get(name) or SOURCE.load(name), ids) - expected).sum()
    assert ours < 0.8 * plain


def test_both_halves_are_what_they_are_said_to_be() -> None:
    """The first half is the float model, the second the model as it was quantized."""
    decoder, kept = quantize()
    first = SEGMENTS[0]
    assert np.allclose(decoder.hidden[: len(first)], final_hidden(SOURCE.load, first), atol=1e-4)
    second = decoder.hidden[decoder.tokens :][: len(first)]
    assert np.allclose(second, final_hidden(lambda name: kept.get(name) or SOURCE.load(name), first), atol=1e-4)


def test_matrices_without_a_grid_stay() -> None:
    decoder, kept = quantize(lambda name: Grid(4) if "down_proj" in name else None)
    assert set(kept) == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)}
    assert decoder.tokens == 1800


def test_shifted_weights_repeat_the_products() -> None:
    """Without a ridge, W' is the least-squares fit of the float products to the other inputs."""
    rng = np.random.default_rng(1)
    inputs = correlated_inputs(32)
    others = (inputs + rng.normal(0, 0.2, inputs.shape)).astype(np.float32)
    weights = rng.normal(0, 1, (7, 32)).astype(np.float32)
    shift = best_shift(inputs.T @ others, others.T @ others, ridge=0)
    expected = np.linalg.lstsq(others, inputs @ weights.T, rcond=None)[0].T
    assert np.allclose(weights @ shift, expected, atol=2e-3)
    assert np.allclose(best_shift(inputs.T @ inputs, inputs.T @ inputs), np.eye(32), atol=1e-4)
