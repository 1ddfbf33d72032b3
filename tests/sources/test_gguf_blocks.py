"""Decoders against the reference ones: equal to the last bit."""

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from edgeai.sources.gguf_blocks import DECODERS
from edgeai.sources.weights import BlockTensor, FloatTensor
from tests.fixtures.gguf_files import random_blocks


@pytest.mark.parametrize("encoding", list(DECODERS))
@pytest.mark.parametrize("shape", [(1, 32), (5, 96), (64, 576)])
def test_equals_the_reference(encoding: str, shape: tuple[int, int]) -> None:
    raw = np.frombuffer(random_blocks(shape, encoding, np.random.default_rng(3)), np.uint8)
    tensor = DECODERS[encoding](raw, shape)
    width = gguf.quant_shape_to_byte_shape(shape, gguf.GGMLQuantizationType[encoding])
    kind = gguf.GGMLQuantizationType[encoding]
    typed = raw.view({"F32": np.float32, "F16": np.float16}.get(encoding, np.uint8))
    expected = dequantize(typed.reshape(shape if encoding in ("F32", "F16") else width), kind)
    assert np.array_equal(tensor.dequantize(), expected)


@pytest.mark.parametrize(("encoding", "bits", "zero_point"), [("Q4_0", 4, 8), ("Q4_1", 4, 0), ("Q8_0", 8, 128)])
def test_codes_stay_on_their_grid(encoding: str, bits: int, zero_point: int) -> None:
    raw = np.frombuffer(random_blocks((8, 64), encoding, np.random.default_rng(4)), np.uint8)
    tensor = DECODERS[encoding](raw, (8, 64))
    assert isinstance(tensor, BlockTensor)
    assert (tensor.bits, tensor.block_size, tensor.zero_point) == (bits, 32, zero_point)
    assert tensor.codes.shape == (8, 64)
    assert tensor.codes.max() < 2**bits
    assert tensor.scales.shape == (8, 2)
    assert tensor.scales.dtype == np.float16
    assert (tensor.minimums is None) == (encoding != "Q4_1")


@pytest.mark.parametrize(("encoding", "dtype"), [("F32", np.float32), ("F16", np.float16), ("BF16", np.float32)])
def test_floats_keep_their_width(encoding: str, dtype: type) -> None:
    raw = np.frombuffer(random_blocks((7,), encoding, np.random.default_rng(5)), np.uint8)
    tensor = DECODERS[encoding](raw, (7,))
    assert isinstance(tensor, FloatTensor)
    assert tensor.values.dtype == dtype
