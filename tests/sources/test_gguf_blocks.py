"""Decoders against the reference ones: equal to the last bit."""

import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given
from hypothesis import strategies as st

from edgeai.architectures.linear import SYMMETRIC_ZERO, stack
from edgeai.errors import SourceError
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.gguf_blocks import DECODERS, FLOATS
from edgeai.sources.gguf_format import TENSOR_TYPES
from edgeai.sources.weights import BlockTensor, FloatTensor, SuperScales
from tests.fixtures.gguf_files import BLOCKS, HALVES, random_blocks, tiny_llama
from tests.fixtures.gguf_types import WIDE_SCALES, exactness

QUANTIZED = sorted(DECODERS.keys() - FLOATS)
SUPER = [encoding for encoding in QUANTIZED if BLOCKS[encoding][0] == 256]
WRITABLE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]  # what gguf-py itself can quantize to
# The grid each type is stored on: bits, block size, zero point, whether it has minimums.
GRIDS = {
    "Q4_0": (4, 32, 8, False),
    "Q4_1": (4, 32, 0, True),
    "Q5_0": (8, 32, 128, False),
    "Q5_1": (8, 32, 112, True),
    "Q8_0": (8, 32, 128, False),
    "Q2_K": (4, 16, 6, True),
    "Q3_K": (4, 16, 8, False),
    "Q4_K": (4, 32, 0, True),
    "Q5_K": (8, 32, 112, True),
    "Q6_K": (8, 16, 128, False),
    "IQ4_NL": (8, 32, 128, False),
    "IQ4_XS": (8, 32, 128, False),
}


def decoded(encoding: str, raw: bytes, shape: tuple[int, int]) -> BlockTensor:
    tensor = DECODERS[encoding](np.frombuffer(raw, np.uint8), shape)
    assert isinstance(tensor, BlockTensor)
    return tensor


def reference(encoding: str, raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[encoding]
    dtype = {"F32": np.float32, "F16": np.float16}.get(encoding, np.uint8)
    width = shape if encoding in ("F32", "F16") else gguf.quant_shape_to_byte_shape(shape, kind)
    return dequantize(np.frombuffer(raw, np.uint8).view(dtype).reshape(width), kind)


def test_every_type_of_the_issue_is_there() -> None:
    assert GRIDS.keys() | FLOATS == DECODERS.keys()


@pytest.mark.parametrize("encoding", list(DECODERS))
@pytest.mark.parametrize("shape", [(1, 256), (5, 768), (64, 512)])
def test_equals_the_reference(encoding: str, shape: tuple[int, int]) -> None:
    raw = random_blocks(shape, encoding, np.random.default_rng(3))
    tensor = DECODERS[encoding](np.frombuffer(raw, np.uint8), shape)
    expected = reference(encoding, raw, shape)
    assert len(np.unique(expected)) > 50
    assert np.array_equal(tensor.dequantize(), expected)


@pytest.mark.parametrize("encoding", WRITABLE)
def test_equals_the_reference_on_quantized_values(encoding: str) -> None:
    values = np.random.default_rng(8).normal(0, 0.02, (32, 96)).astype(np.float32)
    raw = quantize(values, gguf.GGMLQuantizationType[encoding]).tobytes()
    ours = decoded(encoding, raw, (32, 96)).dequantize()
    assert np.array_equal(ours, reference(encoding, raw, (32, 96)))
    assert np.abs(ours - values).max() < 0.02


@pytest.mark.parametrize("encoding", QUANTIZED)
@given(data=st.data())
def test_any_bytes_decode_as_the_reference_does(encoding: str, data: st.DataObject) -> None:
    block, width = BLOCKS[encoding]
    raw = data.draw(st.binary(min_size=2 * width, max_size=2 * width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = decoded(encoding, raw, (2, block)).dequantize(), reference(encoding, raw, (2, block))
    assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("encoding", QUANTIZED)
def test_codes_stay_on_a_grid_that_the_operators_have(encoding: str) -> None:
    tensor = decoded(encoding, random_blocks((8, 512), encoding, np.random.default_rng(4)), (8, 512))
    grid = (tensor.bits, tensor.block_size, tensor.zero_point, tensor.minimums is not None)
    assert grid == GRIDS[encoding]
    assert tensor.codes.shape == (8, 512)
    assert tensor.codes.max() < 2**tensor.bits
    assert tensor.scales.shape == (8, 512 // tensor.block_size)
    assert tensor.scales.dtype == (np.float32 if encoding in SUPER else np.float16)


@pytest.mark.parametrize("encoding", QUANTIZED)
def test_codes_lie_around_the_middle_of_their_container(encoding: str) -> None:
    """The rounding of int8 activations costs more, the further the codes are from the zero point of the operator."""
    raw = random_blocks((8, 512), encoding, np.random.default_rng(4))
    tensor = decoded(encoding, raw, (8, 512))
    steps = len(np.unique(tensor.codes)) if encoding not in ("IQ4_NL", "IQ4_XS") else 256
    distances = np.abs(tensor.codes.astype(int) - SYMMETRIC_ZERO[tensor.bits])
    assert distances.max() <= steps // 2


@pytest.mark.parametrize("encoding", SUPER)
def test_scales_keep_their_small_form(encoding: str) -> None:
    tensor = decoded(encoding, random_blocks((8, 768), encoding, np.random.default_rng(4)), (8, 768))
    pairs = [(tensor.scales, tensor.super_scales), (tensor.minimums, tensor.super_minimums)]
    assert len([small for _, small in pairs if small is not None]) == len(HALVES.get(encoding, (0,)))
    for values, small in pairs:
        assert (values is None) == (small is None)
        if small is not None:
            assert small.steps.shape == (8, 3)
            assert np.array_equal(small.values(), values)


def test_small_scales_follow_their_rows() -> None:
    tensor = decoded("Q4_K", random_blocks((8, 512), "Q4_K", np.random.default_rng(4)), (8, 512))
    order = np.array([5, 0, 7])
    for part in (tensor.take(order), tensor.rows(2, 5), stack([tensor.rows(0, 3), tensor.rows(3, 8)])):
        assert part.super_scales is not None
        assert part.super_minimums is not None
        assert np.array_equal(part.super_scales.values(), part.scales)
        assert np.array_equal(part.super_minimums.values(), part.minimums)
    assert np.array_equal(tensor.take(order).dequantize(), tensor.dequantize()[order])


def test_stacking_with_plain_scales_leaves_the_small_form_out() -> None:
    tensor = decoded("Q6_K", random_blocks((8, 256), "Q6_K", np.random.default_rng(4)), (8, 256))
    plain = BlockTensor(8, 16, 128, tensor.codes, tensor.scales)
    both = stack([tensor, plain])
    assert isinstance(both, BlockTensor)
    assert both.super_scales is None
    assert np.array_equal(both.dequantize(), np.concatenate([tensor.dequantize()] * 2))


def test_products_of_steps_and_multiples_are_exact() -> None:
    steps = np.random.default_rng(0).normal(0, 1, (64, 3)).astype(np.float16)
    multiples = np.random.default_rng(1).integers(-128, 128, (64, 48)).astype(np.int8)
    exact = np.repeat(steps.astype(np.float64), 16, axis=1) * multiples
    assert np.array_equal(SuperScales(steps, multiples).values(), exact)


@pytest.mark.parametrize("encoding", QUANTIZED)
@pytest.mark.parametrize("half", [0x7C00, 0xFC00, 0x7E00], ids=["inf", "-inf", "nan"])
def test_scales_that_are_not_finite_are_refused_by_name(encoding: str, half: int, tmp_path: Path) -> None:
    for at in HALVES.get(encoding, (0,)):
        model = tiny_llama(encoding, hidden=256)
        entry = model.tensor("blk.1.ffn_up.weight")
        entry.data = entry.data[:at] + half.to_bytes(2, "little") + entry.data[at + 2 :]
        path = tmp_path / "bad.gguf"
        path.write_bytes(model.to_bytes())
        source = GGUFSource(path)
        source.load("model.layers.0.mlp.up_proj.weight")
        with pytest.raises(SourceError, match=r"bad\.gguf: tensor 'blk\.1\.ffn_up\.weight' holds values"):
            source.load("model.layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize(("encoding", "dtype"), [("F32", np.float32), ("F16", np.float16), ("BF16", np.float32)])
def test_floats_keep_their_width(encoding: str, dtype: type) -> None:
    raw = np.frombuffer(random_blocks((7,), encoding, np.random.default_rng(5)), np.uint8)
    tensor = DECODERS[encoding](raw, (7,))
    assert isinstance(tensor, FloatTensor)
    assert tensor.values.dtype == dtype


def test_types_are_known_to_the_container() -> None:
    assert DECODERS.keys() <= {name for name, _, _ in TENSOR_TYPES.values()}


@pytest.mark.parametrize("encoding", list(DECODERS))
def test_what_is_stored_is_exact_and_what_is_computed_is_near(encoding: str) -> None:
    """The table of scripts/check_types. Offsets of affine blocks are kept by two digits, as wide as the codes."""
    row = exactness(encoding, seed=5)
    assert row.stored == 0
    digits = {"4": 4e-3, "8": 4e-5}[row.grid[0]] if "minimums" in row.grid else 0  # of the largest weight
    assert row.computed <= digits
    assert row.package_bits <= {"F32": 32, "F16": 16, "BF16": 32}.get(
        encoding, row.source_bits + 5.2 + WIDE_SCALES
    )  # columns of offsets weigh more in so small a matrix
