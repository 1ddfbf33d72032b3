"""What models take of disk and memory: estimates held against real packages and processes, and machines they fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from edgeai.build.quantize.scheme import as_asked
from edgeai.device.fit import AUTO_BITS, SYSTEM_BYTES, Needs, code_bits, fit, needs, package_bytes
from edgeai.device.profile import Cpu, Memory
from edgeai.package.package import Package
from edgeai.recipe import ModelSize, QuantizationPlan, Recipe, find_recipe
from tests.fixtures.tiny import TinySource

PI5 = Cpu("aarch64", "Cortex-A76", ("dotprod",), 4, 4, 4.0)
PI4 = Cpu("aarch64", "Cortex-A72", (), 4, 4, 4.0)
MUCH = 10**12
ANSWER = """
import sys
from pathlib import Path
from edgeai.model import Model
from edgeai.package.package import Package
with Model.load(Package.open(Path(sys.argv[1]))) as model:
    prompt = model.encode_text("The water in the well was low that year. " * 180)[:1900]
    list(model.stream(prompt, model.default_params(max_tokens=100)))
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmRSS")))
"""


def recipe(name: str) -> Recipe:
    return find_recipe(name)


def need(name: str) -> Needs:
    found = recipe(name)
    assert found.size is not None
    return needs(found.size, found.quantization)


def memory(total: float, available: float | None = None, limit: int | None = None) -> Memory:
    return Memory(int(total), int(total if available is None else available), limit)


def test_the_estimate_of_a_package_is_that_of_a_real_one(smollm_package: Package) -> None:
    assert need("smollm2-135m-instruct").package == pytest.approx(smollm_package.size_bytes, rel=0.1)


def test_the_estimate_of_memory_is_that_of_a_real_process(smollm_package: Package) -> None:
    command = [sys.executable, "-c", ANSWER, str(smollm_package.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert need("smollm2-135m-instruct").memory == pytest.approx(int(result.stdout) * 1024, rel=0.25)


def test_a_download_is_the_size_of_the_published_file() -> None:
    """Sizes of model.safetensors in those repositories."""
    assert need("tinyllama-1.1b-chat").download == pytest.approx(2_200_119_864, rel=0.01)
    assert need("minicpm5-1b").download == pytest.approx(2_161_290_912, rel=0.01)
    assert need("qwen3-0.6b").download == pytest.approx(1_503_264_768, rel=0.01)
    assert need("qwen3-1.7b").download == pytest.approx(4_063_479_808, rel=0.01)


def test_fewer_bits_are_smaller() -> None:
    size = recipe("qwen3-0.6b").size
    assert size is not None
    plans = [
        QuantizationPlan(scheme="auto"),
        QuantizationPlan(scheme="gptq", bits=5),
        QuantizationPlan(scheme="rtn", bits=8),
        QuantizationPlan(scheme="source"),
    ]
    sizes = [package_bytes(size, plan) for plan in plans]
    assert sizes == sorted(set(sizes))
    assert package_bytes(size, QuantizationPlan(scheme="auto", max_size="300MB")) == 300_000_000


def test_auto_is_what_the_builder_makes_of_floats() -> None:
    asked = as_asked(QuantizationPlan(scheme="auto"), TinySource())
    assert asked.bits == AUTO_BITS
    kept = recipe("smollm2-135m-instruct").size  # on a grid already
    assert kept is not None
    assert code_bits(kept, QuantizationPlan(scheme="auto")) is None


def test_verdicts() -> None:
    small, large = recipe("qwen2.5-0.5b-instruct"), recipe("mistral-7b-instruct-v0.3")
    assert fit(small, PI5, memory(2e9), MUCH).verdict == "yes"
    assert fit(large, PI5, memory(8e9), MUCH).verdict == "no"
    assert "of memory" in fit(large, PI5, memory(8e9), MUCH).why
    assert fit(small, PI5, memory(2e9, available=3e8), MUCH).verdict == "tight"
    assert fit(small, PI4, memory(2e9), MUCH).verdict == "slow"
    assert "dotprod" in fit(small, PI4, memory(2e9), MUCH).why
    assert fit(small, PI5, memory(2e9), 10**9).verdict == "no"
    assert "of disk" in fit(small, PI5, memory(2e9), 10**9).why


def test_the_limit_of_a_control_group_counts() -> None:
    small = recipe("qwen2.5-0.5b-instruct")
    needed = need("qwen2.5-0.5b-instruct").memory + SYSTEM_BYTES
    assert fit(small, PI5, memory(8e9, limit=needed - 1), MUCH).verdict == "no"
    assert fit(small, PI5, memory(8e9, limit=needed + 1), MUCH).verdict == "yes"


def test_a_recipe_without_sizes_is_unknown() -> None:
    plain = recipe("qwen3-0.6b").model_copy(update={"size": None})
    assert fit(plain, PI5, memory(8e9), MUCH).verdict == "unknown"


def test_a_short_context_needs_less_memory() -> None:
    size = recipe("tinyllama-1.1b-chat").size
    assert isinstance(size, ModelSize)
    short = size.model_copy(update={"context": 512})
    plan = QuantizationPlan(scheme="rtn", bits=4)
    assert needs(short, plan).memory < needs(size, plan).memory
    assert replace(needs(size, plan), memory=0) == replace(needs(short, plan), memory=0)
