"""Whether a model fits a machine: what it takes of disk and memory, computed from its dimensions.

These are estimates for choosing a model. `tests/device/test_fit.py` holds them against packages that were built and
processes that ran.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeai.config import parse_size
from edgeai.device.profile import Cpu, Memory, kernels
from edgeai.recipe import ModelSize, QuantizationPlan, Recipe

CONTEXT = 2048  # tokens of the conversation that memory is computed for
SCALE_BITS = 0.5  # a float16 scale for each block of 32 weights; what keeps the grid it comes on has them in float32
TABLE_BITS = 8 + SCALE_BITS
LEAST_BITS = 4
FLOAT_BITS = 16
AUTO_BITS = 4.5  # what "auto" means for weights that come as floats
TOKEN_BYTES = 60  # of one entry of tokenizer.json
PROCESS_BYTES = 130_000_000  # Python, onnxruntime, tokenizer and the buffers of a run
UNPACKED = 1.9  # bytes of memory for a byte of weights: onnxruntime packs quantized weights once more when it loads
SYSTEM_BYTES = 250_000_000  # what is left to everything else
SLOW = frozenset({"float32", "baseline"})  # names of `kernels` that are no fun


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes, all estimated."""

    download: int
    package: int
    memory: int  # of a server with one conversation of `CONTEXT` tokens


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether it works here: "yes", "tight" (only when other things are stopped), "slow" or "no"; and why."""

    verdict: str
    why: str


def needs(size: ModelSize, plan: QuantizationPlan) -> Needs:
    """What a recipe's model takes."""
    package = package_bytes(size, plan)
    packed = package - widened_bytes(size, plan)
    cache = 2 * size.layers * size.kv_heads * size.head * 4 * min(CONTEXT, size.context)
    return Needs(download_bytes(size), package, int(PROCESS_BYTES + UNPACKED * packed + cache))


def download_bytes(size: ModelSize) -> int:
    """The weights as published, with a tied head where it is stored, and the tokenizer."""
    values = size.parameters + (size.table if size.stored_head else 0)
    return int(values * size.source_bits / 8) + size.vocab * TOKEN_BYTES


def package_bytes(size: ModelSize, plan: QuantizationPlan) -> int:
    """The package: what the plan says, by its own size, or by the bits that it gives to an average weight."""
    if plan.max_size is not None:
        return parse_size(plan.max_size)
    bits = code_bits(size, plan)
    if bits is None:
        weights = size.parameters * size.source_bits
    elif bits == LEAST_BITS:  # the token table is kept at 8
        weights = (size.parameters - size.table) * (bits + SCALE_BITS) + size.table * TABLE_BITS
    else:
        weights = size.parameters * (bits + SCALE_BITS)
    return int(weights / 8) + size.vocab * TOKEN_BYTES + widened_bytes(size, plan)


def widened_bytes(size: ModelSize, plan: QuantizationPlan) -> int:
    """What float32 scales take on disk beyond float16 ones, where weights keep the grid they come on."""
    kept = plan.max_size is None and code_bits(size, plan) is None and size.source_bits < FLOAT_BITS
    return int(size.parameters * SCALE_BITS / 8) if kept else 0


def code_bits(size: ModelSize, plan: QuantizationPlan) -> float | None:
    """Bits of an average weight without its scale; None where weights stay as they come."""
    if plan.bits is None and plan.scheme == "auto" and size.source_bits >= FLOAT_BITS:
        return AUTO_BITS
    return plan.bits


def fit(recipe: Recipe, cpu: Cpu, memory: Memory, disk_free: int) -> Fit:
    """Hold a recipe against a machine."""
    if recipe.size is None:
        return Fit("unknown", "the recipe does not say how large the model is")
    need = needs(recipe.size, recipe.quantization)
    whole = memory.size
    if need.memory > whole - SYSTEM_BYTES:
        return Fit("no", f"it needs about {gigabytes(need.memory)} of memory, the machine has {gigabytes(whole)}")
    if need.package + need.download > disk_free:
        needed = gigabytes(need.package + need.download)
        return Fit("no", f"it needs about {needed} of disk for download and package, {gigabytes(disk_free)} are free")
    chosen = kernels(cpu)
    if chosen.name in SLOW:
        return Fit("slow", chosen.why)
    if need.memory > memory.available:
        return Fit(
            "tight", f"it needs about {gigabytes(need.memory)} of memory, {gigabytes(memory.available)} are free"
        )
    return Fit("yes", chosen.name)


def gigabytes(size: int) -> str:
    """A size in bytes as people read it, in decimal gigabytes."""
    return f"{size / 1e9:.1f} GB"
