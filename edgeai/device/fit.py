"""Whether a model fits a machine: what it takes of disk and memory, computed from its dimensions.

These are estimates for choosing a model. `tests/device/test_fit.py` holds them against packages that were built and
processes that ran.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeai.device.profile import Cpu, Memory, kernels
from edgeai.recipe import ModelSize, QuantizationPlan, Recipe

CONTEXT = 2048  # tokens of the conversation that memory is computed for
SCALE_BITS = 0.5  # a float16 scale for each block of 32 weights
TABLE_BITS = 8 + SCALE_BITS  # the token table is kept at 8 bits
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
    cache = 2 * size.layers * size.kv_heads * size.head * 4 * min(CONTEXT, size.context)
    return Needs(download_bytes(size), package, int(PROCESS_BYTES + UNPACKED * package + cache))


def download_bytes(size: ModelSize) -> int:
    """The weights as published, with a tied head where it is stored, and the tokenizer."""
    values = size.parameters + (size.table if size.stored_head else 0)
    return int(values * size.source_bits / 8) + size.vocab * TOKEN_BYTES


def package_bytes(size: ModelSize, plan: QuantizationPlan) -> int:
    """The package: the token table at 8 bits, everything else at the plan's."""
    bits = body_bits(size, plan)
    body = (size.parameters - size.table) * bits
    table = size.table * max(TABLE_BITS, bits)
    return int((body + table) / 8) + size.vocab * TOKEN_BYTES


def body_bits(size: ModelSize, plan: QuantizationPlan) -> float:
    """Bits of a weight in the package, scales included: the plan's, or those it comes with."""
    return size.source_bits if plan.bits is None else plan.bits + SCALE_BITS


def fit(recipe: Recipe, cpu: Cpu, memory: Memory, disk_free: int) -> Fit:
    """Hold a recipe against a machine."""
    if recipe.size is None:
        return Fit("unknown", "the recipe does not say how large the model is")
    need = needs(recipe.size, recipe.quantization)
    whole = min(memory.total, memory.limit or memory.total)
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
