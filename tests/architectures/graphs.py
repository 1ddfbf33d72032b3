"""Running a written graph the way an engine may: several rows, ragged lengths, any positions' logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeai.architectures.affine import digits_of, in_the_middle, is_affine, offsets_of
from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.linear import centred
from edgeai.architectures.registry import reference_logits, write_graph
from edgeai.onnx_session import OnnxSession
from edgeai.sources.weights import BlockTensor, FloatTensor, SuperScales, Tensor
from tests.fixtures.tiny import TinySource

FLOAT_COMPUTE = 0  # accuracy_level of MatMulNBits: activations stay float32


class Graph:
    """A tiny source written to `folder`, with a KV cache of `rows` rows. `exact` computes in float32 throughout."""

    def __init__(self, source: TinySource, folder: Path, *, rows: int = 1, capacity: int = 160, exact: bool = False):
        self.path = folder / "model.onnx"
        context = getattr(source, "context", None)
        self.config = write_graph(source.config, source.load, self.path, folder / "weights.bin", context=context)
        if exact:
            compute_in_float(self.path)
        self._session = OnnxSession(self.path, threads=1)
        config = self.config
        shape = (config.num_layers, 2, rows, config.num_kv_heads, capacity, config.head_size)
        self._cache = np.zeros(shape, np.float32)

    def run(
        self, ids: Sequence[Sequence[int]], done: Sequence[int], wanted: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """New tokens of each row behind the `done` ones it has.

        Gives the logits [n, vocab_size] of `wanted` (row, new position), by default of every token but padding.
        """
        rows, new = len(ids), max(map(len, ids))
        pairs = [(row, at) for row in range(rows) for at in range(len(ids[row]))] if wanted is None else wanted
        padded = np.array([[*row, *[0] * (new - len(row))] for row in ids], np.int64)
        totals = np.array([before + len(row) for before, row in zip(done, ids, strict=True)], np.int32)
        logits = np.full((1, len(pairs), self.config.vocab_size), np.nan, np.float32)
        binding = self._session.binding()
        binding.input("input_ids", padded)
        binding.input("seqlens_k", totals - 1)
        binding.input("query_seqlens", np.array([len(row) for row in ids], np.int32))
        binding.input("total_sequence_length", np.array(totals.max(), np.int32))
        binding.input("logit_index", np.array([row * new + at for row, at in pairs], np.int64))
        for layer, parts in enumerate(self._cache):
            for part, values in zip(("key", "value"), parts, strict=True):
                binding.in_place(f"past.{layer}.{part}", f"present.{layer}.{part}", values[:rows])
        binding.output("logits", logits)
        self._session.run_bound(binding)
        return logits[0]

    def steps(self, ids: Sequence[int], sizes: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits of all `ids`, given to row 0 in runs of `sizes`."""
        parts, done = [], 0
        for size in sizes:
            parts.append(self.run([ids[done : done + size]], [done]))
            done += size
        return np.concatenate(parts)


def expected(source: TinySource, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return reference_logits(source.config, source.load, list(ids))


def kept(load: LoadTensor) -> LoadTensor:
    """Tensors as products keep them: the offsets of affine blocks as their digits give them (affine.py).

    A token table keeps its own, for it is looked up as well.
    """

    def keep(name: str) -> Tensor:
        tensor = load(name)
        if name == "model.embed_tokens.weight" or not isinstance(tensor, BlockTensor) or not is_affine(centred(tensor)):
            return tensor
        middle = in_the_middle(tensor)
        offsets = offsets_of(middle)
        minimums = np.zeros_like(offsets) if middle.minimums is None else middle.minimums.astype(np.float32)
        rounded = minimums + digits_of(offsets, middle.bits).values() - offsets
        return replace(middle, minimums=rounded, super_minimums=None)

    return keep


def random_ids(count: int, *, seed: int = 0, vocab: int = 96) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, count)]


def compute_in_float(path: Path) -> None:
    """Let every quantized product of a saved graph keep its activations in float32."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FLOAT_COMPUTE
    path.write_bytes(model.SerializeToString())


# name: bits, block size, zero point, whether blocks have minimums, type of the scales
GRIDS: dict[str, tuple[int, int, int, bool, type]] = {
    "q4_0": (4, 32, 8, False, np.float16),
    "q4_1": (4, 32, 0, True, np.float16),
    "q8_0": (8, 32, 128, False, np.float16),
    "8-bit affine": (8, 32, 0, True, np.float16),
    "4-bit off centre": (4, 16, 3, False, np.float32),
    "6 bits in 8": (8, 16, 32, False, np.float32),
    "4-bit blocks of 64": (4, 64, 5, True, np.float32),
}
OWN_ZEROS = "own zeros"  # each block has a zero point of its own, as in GPTQ and AWQ checkpoints
GRIDS |= {
    f"4-bit {OWN_ZEROS}": (4, 32, 8, False, np.float16),
    f"4-bit blocks of 64, {OWN_ZEROS}": (4, 64, 8, False, np.float16),
    f"8-bit {OWN_ZEROS}": (8, 32, 128, False, np.float16),
    f"4-bit {OWN_ZEROS} and minimums": (4, 16, 8, True, np.float32),
}
SUPER = "super-blocks"  # scales are integers times a step for each 64 values, as in GGUF's K types
GRIDS |= {
    f"4-bit {SUPER}": (4, 16, 8, False, np.float32),
    f"4-bit {SUPER} and minimums": (4, 32, 0, True, np.float32),
    f"8-bit {SUPER}": (8, 16, 128, False, np.float32),
}
FORMS = ["float32", "float16", *GRIDS]


def stored(form: str, shape: tuple[int, int], seed: int = 0, *, spread: float | None = None) -> Tensor:
    """A random matrix in one of `FORMS`; values spread as those of `TinySource` do."""
    rng = np.random.default_rng([seed, *shape])
    deviation = spread or 2.0 / np.sqrt(shape[1])
    if form not in GRIDS:
        return FloatTensor(rng.normal(0, deviation, shape).astype(form))
    bits, block, zero, affine, dtype = GRIDS[form]
    codes = rng.integers(0, 64 if form == "6 bits in 8" else 2**bits, shape, dtype=np.uint8)
    blocks = (shape[0], shape[1] // block)
    scales = rng.uniform(0.5, 1.5, blocks) * deviation / codes.std()
    middle = codes.mean() - zero
    minimums = (-middle * scales * rng.uniform(0.9, 1.1, blocks)).astype(dtype) if affine else None
    largest = 2**bits - 1
    zeros = rng.integers(largest // 3, largest * 2 // 3 + 2, blocks, dtype=np.uint8) if OWN_ZEROS in form else None
    if SUPER in form:
        return _in_super_blocks(BlockTensor(bits, block, zero, codes, scales.astype(dtype), minimums))
    return BlockTensor(bits, block, zero, codes, scales.astype(dtype), minimums, zeros)


def _in_super_blocks(tensor: BlockTensor) -> BlockTensor:
    """The tensor with scales and minimums rounded to integers times a step."""
    scales = _super_scales(tensor.scales, 64 // tensor.block_size)
    if tensor.minimums is None:
        return replace(tensor, scales=scales.values(), super_scales=scales)
    minimums = _super_scales(tensor.minimums, 64 // tensor.block_size)
    return replace(
        tensor,
        scales=scales.values(),
        minimums=minimums.values(),
        super_scales=scales,
        super_minimums=minimums,
    )


def _super_scales(values: np.ndarray[Any, Any], size: int) -> SuperScales:
    grouped = values.reshape(len(values), -1, size)
    steps = (np.abs(grouped).max(axis=-1) / 63).astype(np.float16)
    multiples = np.rint(grouped / steps[..., None]).astype(np.int8)
    return SuperScales(steps, multiples.reshape(values.shape))
