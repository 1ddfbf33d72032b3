"""From a plan to tensors in the form they are stored in: source, round-to-nearest, or error-compensated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeai.architectures.blocks import LoadTensor
from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import EMBEDDINGS
from edgeai.architectures.registry import run_reference
from edgeai.build.quantize.allocation import allocate, predicted
from edgeai.build.quantize.calibration import calibration_segments
from edgeai.build.quantize.compensate import compensated, curvature
from edgeai.build.quantize.grid import Floats, Grid, grid_for, nearest_tensor
from edgeai.build.quantize.groups import Group, find_groups
from edgeai.build.quantize.scratch import Scratch
from edgeai.build.quantize.sensitivity import sensitivities
from edgeai.build.quantize.sequential import QuantizingDecoder
from edgeai.config import parse_size
from edgeai.progress import Progress
from edgeai.recipe import QuantizationPlan
from edgeai.sources.weights import FloatTensor, Tensor, TokenizerFiles, WeightSource

CALIBRATION_BYTES = 1_200_000_000  # of hidden states and their products, at most
PROBE_SEGMENTS, PROBE_TOKENS = 3, 48  # the text that sensitivities are measured on
TABLE_BITS = 8  # of a token table or head, unless a budget decides: it loses most by rounding
LOOKUP_SHARE = 0.1  # of a tied table's Hessian: what it is worth as a table of inputs, beside its use as a head


@dataclass(frozen=True)
class Quantized:
    """Tensors as they will be stored, and what is known about them."""

    scheme: str  # "source", "rtn" or "gptq"
    load: LoadTensor
    made: frozenset[str] = frozenset()  # names of the tensors that were rounded
    expected_kl: float | None = None  # by the sensitivities, where they were measured


@dataclass(frozen=True)
class Job:
    """What there is to quantize, and what with."""

    plan: QuantizationPlan
    source: WeightSource
    config: DecoderConfig
    files: TokenizerFiles
    progress: Progress
    scratch: Scratch
    other_bytes: int = 0  # of the package, beside the matrices that are quantized


def quantized(job: Job) -> Quantized:
    """Carry out a plan. Raises `InvalidInput` where it cannot be."""
    if job.plan.scheme == "source" and job.plan.bits is None:
        return Quantized("source", job.source.load)
    groups = candidates(job)
    grids, expected = choose_grids(job, groups)
    if not grids:
        return Quantized("source", job.source.load)
    if job.plan.scheme == "gptq":
        return _compensated(job, grids, expected)

    def load(name: str) -> Tensor:
        if name not in grids:
            return job.source.load(name)
        if name not in job.scratch:  # a head is asked for many times when the graph is checked
            job.scratch.keep(name, nearest_tensor(job.source.load(name), grids[name]))
        return job.scratch.load(name)

    return Quantized("rtn", load, frozenset(grids), expected)


def candidates(job: Job) -> list[Group]:
    """Groups of matrices that may be rounded: floats, or all of them where the plan says so."""
    found = []
    for group in find_groups(job.config, job.source.load):
        may = [(name, shape) for name, shape in zip(group.names, group.shapes, strict=True) if _may(job, name)]
        if may:
            found.append(Group(tuple(name for name, _ in may), tuple(shape for _, shape in may)))
    return found


def choose_grids(job: Job, groups: Sequence[Group]) -> tuple[dict[str, Grid], float | None]:
    """The grid of every matrix, and the mean KL divergence expected of them where sensitivities were measured."""
    plan = job.plan
    if plan.max_size is None and plan.bits in (4, 8):
        bits = [int(plan.bits) if not group.is_table else plan.table_bits or TABLE_BITS for group in groups]
        return _grids(groups, bits, plan.block_size), None
    probe = [s[:PROBE_TOKENS] for s in calibration_segments(job.files, 10**9, plan.calibration)]
    chosen = [probe[len(probe) * number // PROBE_SEGMENTS] for number in range(PROBE_SEGMENTS)]
    costs = sensitivities(job.config, job.source.load, chosen, groups, Grid(4), job.progress)
    budget = None if plan.max_size is None else parse_size(plan.max_size) - job.other_bytes
    bits = allocate(groups, costs, bits=plan.bits, budget=budget, block_size=plan.block_size)
    return _grids(groups, bits, plan.block_size), predicted(costs, bits)


def calibration_tokens(config: DecoderConfig, wanted: int) -> int:
    """As many as are wanted, or as fit into the memory for hidden states: two halves, about five copies of each."""
    row = 4 * 2 * (6 * config.hidden_size + 5 * config.intermediate_size)
    return min(wanted, CALIBRATION_BYTES // row)


def _compensated(job: Job, grids: Mapping[str, Grid], expected: float | None) -> Quantized:
    """Quantize matrix by matrix under calibration text, into the scratch folder."""
    segments = calibration_segments(
        job.files, calibration_tokens(job.config, job.plan.calibration_tokens), job.plan.calibration
    )
    decoder = QuantizingDecoder(
        job.config,
        job.source.load,
        segments,
        choose=grids.get,
        keep=job.scratch.keep,
        progress=job.progress,
        table=grids.get(EMBEDDINGS),
    )
    run_reference(decoder)
    _compensate_head(job, grids, decoder.hidden[decoder.tokens :])

    def load(name: str) -> Tensor:
        return job.scratch.load(name) if name in job.scratch else job.source.load(name)

    return Quantized("gptq", load, frozenset(grids), expected)


def _compensate_head(job: Job, grids: Mapping[str, Grid], hidden: Floats) -> None:
    """The output head, and the token table where it is not the same."""
    name = EMBEDDINGS if job.config.tied_embeddings else "lm_head.weight"
    if name in grids:
        job.progress("quantize the output head")
        hessian = hidden.T @ hidden / np.float32(len(hidden))
        if job.config.tied_embeddings:
            share = LOOKUP_SHARE * float(np.einsum("ii->", hessian)) / len(hessian)
            hessian += np.eye(len(hessian), dtype=np.float32) * np.float32(share)
        job.scratch.keep(name, compensated(job.source.load(name).dequantize(), grids[name], curvature(hessian)))
    if EMBEDDINGS in grids and EMBEDDINGS not in job.scratch:
        job.scratch.keep(EMBEDDINGS, nearest_tensor(job.source.load(EMBEDDINGS), grids[EMBEDDINGS]))


def _grids(groups: Sequence[Group], bits: Sequence[int], block_size: int) -> dict[str, Grid]:
    return {
        name: grid_for(cols, width, block_size)
        for group, width in zip(groups, bits, strict=True)
        for name, (_, cols) in zip(group.names, group.shapes, strict=True)
    }


def _may(job: Job, name: str) -> bool:
    tensor = job.source.load(name)
    return (isinstance(tensor, FloatTensor) or job.plan.requantize) and Grid(4).fits(tensor.shape[1])


def as_asked(plan: QuantizationPlan, source: WeightSource) -> QuantizationPlan:
    """What "auto" means for a source: where most weights are floats, int4 with the most sensitive parts at 8 bits."""
    if plan.scheme != "auto":
        return plan
    total = floats = 0
    for info in source.tensors:
        if len(info.shape) == 2:
            total += info.shape[0] * info.shape[1]
            floats += info.shape[0] * info.shape[1] * (info.encoding in ("F32", "F16", "BF16"))
    asked = plan.bits is not None or plan.max_size is not None
    if not asked and 2 * floats < total:
        return replace_plan(plan, scheme="source")
    return replace_plan(plan, scheme="gptq", bits=plan.bits if asked else 4.5)


def replace_plan(plan: QuantizationPlan, **changes: object) -> QuantizationPlan:
    return QuantizationPlan.model_validate(plan.model_dump() | changes)
