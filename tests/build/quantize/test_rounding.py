"""Rounding to a grid, against the reference quantizer of the format it follows."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from gguf.quants import quantize as reference_quantize
from hypothesis import given
from hypothesis import strategies as st

from edgeai.build.quantize.rounding import quantize, round_to_nearest
from edgeai.sources.gguf_blocks import DECODERS
from edgeai.sources.weights import BlockTensor, FloatTensor

FORMATS = {4: "Q4_0", 8: "Q8_0"}


def random_matrix(rows: int, cols: int, seed: int = 0, spread: float = 0.05) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (rows, cols)).astype(np.float32)


def reference(values: np.ndarray, bits: int) -> BlockTensor:
    raw = reference_quantize(values, gguf.GGMLQuantizationType[FORMATS[bits]])
    tensor = DECODERS[FORMATS[bits]](raw.reshape(-1).view(np.uint8), values.shape)
    assert isinstance(tensor, BlockTensor)
    return tensor


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_the_reference_s_and_codes_too_but_for_ties(bits: int) -> None:
    """The reference divides by the float32 scale and stores a float16 one; here codes suit the scale that is stored.

    So a value near the middle between two codes may go to the other, never further; and the result is no worse.
    """
    values = random_matrix(400, 256)
    ours, theirs = round_to_nearest(values, bits), reference(values, bits)
    assert np.array_equal(ours.scales, theirs.scales)
    assert (ours.bits, ours.block_size, ours.zero_point) == (theirs.bits, theirs.block_size, theirs.zero_point)
    apart = np.abs(ours.codes.astype(int) - theirs.codes.astype(int))
    assert apart.max() <= 1
    assert apart.mean() < (0.001 if bits == 4 else 0.03)
    errors = [np.square(tensor.dequantize() - values).mean() for tensor in (ours, theirs)]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_values_on_the_grid_come_back_exactly(bits: int) -> None:
    """What the reference dequantizes is rounded to the same scales and values."""
    values = random_matrix(50, 128)
    kind = gguf.GGMLQuantizationType[FORMATS[bits]]
    on_grid = dequantize(reference_quantize(values, kind), kind).reshape(values.shape)
    assert np.array_equal(round_to_nearest(on_grid, bits).dequantize(), on_grid)


@given(
    seed=st.integers(0, 2**32),
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    spread=st.sampled_from([1e-3, 0.05, 1.0, 100.0]),
)
def test_errors_are_bounded(seed: int, bits: int, block_size: int, spread: float) -> None:
    """Half a step, but for the far end of the 4-bit grid, which has no code for +8 steps."""
    values = random_matrix(4, 128, seed, spread)
    tensor = round_to_nearest(values, bits, block_size)
    steps = np.abs(np.repeat(tensor.scales.astype(np.float32), block_size, axis=1))
    bound = 1.0 if bits == 4 else 0.5
    slack = 0.06 if bits == 8 else 0.005  # the peak over a step rounded to float16: 127 * 2**-11, 8 * 2**-11
    assert (np.abs(tensor.dequantize() - values) <= (bound + slack) * steps + 1e-7).all()
    inside = np.abs(values) <= steps * (7 if bits == 4 else 126)
    assert (np.abs(tensor.dequantize() - values) <= 0.501 * steps + 1e-7)[inside].all()


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: int) -> None:
    values = random_matrix(3, 64)
    values[1] = 0
    values[2] = 1e-12  # less than any float16 scale
    tensor = round_to_nearest(values, bits)
    assert not tensor.dequantize()[1:].any()
    assert np.isfinite(tensor.scales).all()


def test_only_float_matrices_are_rounded() -> None:
    matrix = FloatTensor(random_matrix(8, 64))
    blocks = round_to_nearest(matrix.values, 8)
    for name, tensor, bits in (
        ("x_proj.weight", matrix, None),
        ("x_proj.weight", blocks, 4),
        ("norm.weight", FloatTensor(np.ones(64, np.float32)), 4),
        ("odd.weight", FloatTensor(random_matrix(8, 33)), 4),
    ):
        assert quantize(name, tensor, bits) is tensor


@pytest.mark.parametrize(
    ("name", "bits", "stored"),
    [
        ("model.layers.0.mlp.up_proj.weight", 4, 4),
        ("model.layers.0.mlp.up_proj.weight", 8, 8),
        ("model.embed_tokens.weight", 4, 8),
        ("lm_head.weight", 4, 8),
    ],
)
def test_tables_and_heads_keep_eight_bits(name: str, bits: int, stored: int) -> None:
    half = FloatTensor(random_matrix(8, 64).astype(np.float16))
    tensor = quantize(name, half, bits)
    assert isinstance(tensor, BlockTensor)
    assert tensor.bits == stored
    assert np.array_equal(tensor.codes, round_to_nearest(half.dequantize(), stored).codes)
