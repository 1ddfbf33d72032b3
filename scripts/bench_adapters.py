"""Measures what LoRA adapters cost beside the plain graph, in turn, and prints ratios of speeds.

Both graphs are loaded in this process and take turns, run by run; a ratio is the median of the ratios within rounds, so
that a machine whose speed drifts does not decide it. Resident memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings
from edgeai.engine.model_runner import ModelRunner
from edgeai.model import model_shape
from edgeai.package.adapter_sites import read_sites
from edgeai.package.manifest import ADAPTER_SITES_NAME
from edgeai.package.package import Package

ROWS, CONTEXT, PROMPT, STEPS = 8, 128, 256, 8
Company = list[Adapter | None]


def random_adapter(package: Package, rank: int, seed: int) -> Adapter:
    """What installing gives for an adapter of all projections: stacked matrices have one block of columns for each."""
    rng = np.random.default_rng(seed)
    terms = {}
    for number, site in enumerate(read_sites(package.path / ADAPTER_SITES_NAME)):
        columns = rank * len(site.modules)
        a = rng.normal(0, site.inputs**-0.5, (site.inputs, columns)).astype(np.float32)
        terms[number] = (a, rng.normal(0, 0.01, (columns, sum(site.sizes))).astype(np.float32))
    return Adapter(str(seed), bytes([seed]), terms)


def make_runner(package: Package, threads: int, *, adapters: bool) -> ModelRunner:
    settings = replace(EngineSettings(), threads=threads, max_rows=ROWS)
    runner = ModelRunner(package.graph, model_shape(package.manifest), settings, 512, package.adapter_graph)
    if adapters:
        runner.enable_adapters()
    return runner


def decode(runner: ModelRunner, company: Company) -> float:
    """Seconds of one step."""
    rows = len(company)
    runner.decode([5] * rows, [CONTEXT] * rows, company)  # binds what it needs
    started = time.perf_counter()
    for step in range(STEPS):
        runner.decode([5 + step] * rows, [CONTEXT + step] * rows, company)
    return (time.perf_counter() - started) / STEPS


def prefill(runner: ModelRunner, company: Company) -> float:
    started = time.perf_counter()
    runner.prefill(0, list(range(100, 100 + PROMPT)), 0, company[0])
    return time.perf_counter() - started


def compare(plain: ModelRunner, adapted: ModelRunner, adapters: list[Adapter], rounds: int) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    one: Company = [adapters[0]]
    four: Company = [adapters[row % 4] for row in range(ROWS)]
    cases: list[tuple[str, Callable[[ModelRunner, Company], float], Company]] = [
        ("decode, 1 row, no adapter", decode, [None]),
        ("decode, 1 row, one adapter", decode, one),
        (f"decode, {ROWS} rows, no adapter", decode, [None] * ROWS),
        (f"decode, {ROWS} rows, one adapter", decode, one * ROWS),
        (f"decode, {ROWS} rows, base and one adapter", decode, [None, *one] * (ROWS // 2)),
        (f"decode, {ROWS} rows, 4 different adapters", decode, four),
        (f"prompt of {PROMPT}, no adapter", prefill, [None]),
        (f"prompt of {PROMPT}, one adapter", prefill, one),
    ]
    yield "| | plain graph, ms | with adapters, ms | speed |\n|---|---|---|---|"
    for label, measure, company in cases:
        pairs = [(measure(plain, [None] * len(company)), measure(adapted, company)) for _ in range(rounds + 1)][1:]
        base, other = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        yield f"| {label} | {base:.1f} | {other:.1f} | {ratio:.2f}x |"


def resident(path: Path, threads: int, *, adapters: bool) -> int:
    """Resident bytes of a process with a loaded graph that has answered once; of one that changed graphs, if so."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_resident, (path, threads, adapters))


def _resident(path: Path, threads: int, adapters: bool) -> int:
    runner = make_runner(Package.open(path), threads, adapters=False)
    decode(runner, [None])
    if adapters:
        runner.enable_adapters()
        decode(runner, [None])
    return psutil.Process().memory_info().rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    package = Package.open(args.package)
    adapters = [random_adapter(package, args.rank, seed) for seed in range(4)]
    size = sum(a.nbytes + b.nbytes for a, b in adapters[0].terms.values())
    runners = [make_runner(package, args.threads, adapters=adapted) for adapted in (False, True)]
    print(f"adapters of rank {args.rank} for all projections: {size / 1e6:.1f} MB each")
    for line in compare(*runners, adapters, args.rounds):
        print(line, flush=True)
    memory = [resident(args.package, args.threads, adapters=adapted) / 1e6 for adapted in (False, True)]
    print(f"resident memory: plain {memory[0]:.0f} MB, after changing over {memory[1]:.0f} MB")


if __name__ == "__main__":
    main()
