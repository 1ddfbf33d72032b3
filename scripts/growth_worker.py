"""Measures one model at one context, in a process of its own: growth_worker.py PACKAGE THREADS < TASK, answers in JSON.

TASK is `{"kv_type": .., "context": .., "rows": [..]}`, or `{"check": context}` for a comparison with real prompts.
Seconds are elapsed ones; with one thread those of its CPU time, which other processes change much less.
What a step or a chunk finds in the KV cache is not computed but bounded random values: their number decides how long
it takes, not what they are, as the check shows. A step at a context of n is the one after which n tokens are cached.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from growth_cells import CHUNK, chunk_starts, prompt_seconds

from edgeai.engine.config import EngineSettings, KVType
from edgeai.engine.engine import Engine
from edgeai.engine.load_runner import load_runner
from edgeai.engine.request import SamplingParams
from edgeai.engine.runner import Logits, Runner
from edgeai.engine.sampler import sample
from edgeai.engine.scores import with_scores_that_fit
from edgeai.engine.sequence import Sequence
from edgeai.measure.throughput import DECODE_TOKENS, Clock, decode_speed, prefill_speed
from edgeai.model import Model, default_settings, model_shape
from edgeai.package.package import Package

ENOUGH_SECONDS, LEAST_STEPS, MOST_STEPS = 0.2, 2, 10
FILL_TOKENS = 512  # are drawn, and written again and again
CHECK_ROUNDS, CHECK_ROWS = 3, 4
GREEDY = SamplingParams(temperature=0, ignore_eos=True)


def runner_for(package: Package, threads: int, kv_type: KVType, context: int, rows: int) -> Runner:
    """What an engine for this context would run; it has no plan for memory, for rows were chosen to fit."""
    shape = model_shape(package.manifest, kv_type)
    settings = EngineSettings(threads=threads, kv_type=kv_type, max_rows=rows)
    return load_runner(package.graphs(kv_type)[0], shape, with_scores_that_fit(settings, shape, context), context)


def fill(runner: Runner, slot: int, tokens: int) -> None:
    """Put random keys and values into the first `tokens` positions of a slot."""
    rng, shape = np.random.default_rng(slot), runner.shape
    dims = (shape.num_layers, 2, shape.num_kv_heads, min(FILL_TOKENS, tokens), shape.head_size)
    integers = runner.arena.array.dtype == np.int8
    values = rng.integers(-127, 128, dims, np.int8) if integers else rng.random(dims, np.float32) * 2 - 1
    for start in range(0, tokens, FILL_TOKENS):
        runner.arena.write(slot, start, values[..., : tokens - start, :])


def empty(runner: Runner) -> None:
    """Give all slots back to the engine's scheduler."""
    for slot in runner.arena.occupied:
        runner.arena.release(slot)


def decode_seconds(runner: Runner, context: int, rows: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of a step, the sampling of its tokens included: the median of a few, after one that does not count."""
    rng = np.random.default_rng(rows)
    tokens = [int(token) for token in rng.integers(3, runner.shape.vocab_size, rows)]
    sequences = [Sequence.start("", [token], GREEDY) for token in tokens]

    def step() -> None:
        for logits, sequence in zip(runner.decode(tokens, [context - 1] * rows), sequences, strict=True):
            sample(logits, sequence)

    require_finite(runner.decode(tokens, [context - 1] * rows))
    times: list[float] = []
    while len(times) < MOST_STEPS and (len(times) < LEAST_STEPS or sum(times) < ENOUGH_SECONDS):
        times.append(timed(step, clock))
    return statistics.median(times)


def chunk_seconds(runner: Runner, start: int, tokens: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of a prompt's chunk of so many tokens behind `start` others, in the first slot."""
    rng = np.random.default_rng(start)
    chunk = [int(token) for token in rng.integers(3, runner.shape.vocab_size, tokens)]
    return timed(lambda: require_finite(runner.prefill(0, chunk, start)), clock)


def timed(run: Callable[[], object], clock: Clock) -> float:
    started = clock()
    run()
    return clock() - started


def require_finite(logits: Logits) -> None:
    if not np.isfinite(logits).all():
        raise ValueError("random keys and values led to logits that are no numbers: their time says nothing")


def visit(runner: Runner, context: int, rows: list[int], clock: Clock) -> dict[str, Any]:
    """Figures of all rows and chunks; the cache is filled as more rows need it, so that memory is theirs.

    `others` is the part of the machine's processors that other processes had meanwhile.
    """
    decode, resident, process, filled = dict[int, float](), dict[int, int](), psutil.Process(), 0
    started, before = time.perf_counter(), cpu_seconds_of_others(process)
    for count in rows:
        for slot in range(filled, count):
            fill(runner, slot, context)
        filled = count
        decode[count] = decode_seconds(runner, context, count, clock)
        resident[count] = process.memory_info().rss
    chunk_seconds(runner, 0, min(CHUNK, context))  # does not count
    tokens = min(CHUNK, context)
    chunks = {start: chunk_seconds(runner, start, tokens, clock) for start in chunk_starts(context)}
    processors = (time.perf_counter() - started) * (psutil.cpu_count() or 1)
    others = max(0.0, cpu_seconds_of_others(process) - before) / processors
    return {"decode": decode, "chunks": chunks, "resident": resident, "others": others}


def cpu_seconds_of_others(process: psutil.Process) -> float:
    """CPU time of all other processes since the machine was started, what a hypervisor took away included."""
    machine, own = psutil.cpu_times(), process.cpu_times()
    busy = sum(getattr(machine, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return float(busy - own.user - own.system)


def check(package: Package, threads: int, context: int, clock: Clock) -> dict[str, dict[str, float]]:
    """Tokens per second with real prompts and with random keys and values, of one engine and in turn."""
    length = context + 2 * DECODE_TOKENS
    settings = default_settings(
        package.manifest,
        threads=threads,
        max_rows=CHECK_ROWS,
        max_context=length,
        kv_budget_bytes=(CHECK_ROWS + 1) * model_shape(package.manifest).token_bytes * (length + 64),
        latency_seconds=60.0,  # whole chunks, or the first row would be done before the last one has read its prompt
        prefix_cache=False,
        draft_tokens=0,
    )
    engine = Model.load(package, settings).engine
    rounds = [check_round(engine, context, 1000 * number, clock) for number in range(1 + CHECK_ROUNDS)][1:]
    return {what: compared([figures[what] for figures in rounds]) for what in rounds[0]}


def check_round(engine: Engine, context: int, seed: int, clock: Clock) -> dict[str, tuple[float, float]]:
    """Speeds with real prompts, and with filled caches of as many tokens as real answers have in their middle."""
    found, runner = {}, engine.runner
    for length, rows in ((context, 1), (context // CHECK_ROWS, CHECK_ROWS)):
        real = decode_speed(engine, length, rows=rows, seed=seed, clock=clock)
        for slot in range(rows):
            fill(runner, slot, length + DECODE_TOKENS)
        filled = rows / decode_seconds(runner, length + DECODE_TOKENS // 2, rows, clock)
        found[f"decode at a context of {length}, rows {rows}"] = (real, filled)
        empty(runner)
    real = prefill_speed(engine, context, seed=seed + CHECK_ROWS, clock=clock)
    fill(runner, 0, context)
    chunks = {start: chunk_seconds(runner, start, CHUNK, clock) for start in chunk_starts(context)}
    found[f"prompt of {context}"] = (real, context / prompt_seconds(chunks, context))
    empty(runner)
    return found


def compared(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of both, and median, least and most of the ratios within a round."""
    ratios = [filled / real for real, filled in pairs]
    real, filled = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {
        "real": real,
        "filled": filled,
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    package, threads, task = Package.open(Path(sys.argv[1])), int(sys.argv[2]), json.load(sys.stdin)
    clock = time.thread_time if threads == 1 else time.perf_counter
    if "check" in task:
        print(json.dumps(check(package, threads, task["check"], clock)))
        return
    context, rows = task["context"], task["rows"]
    runner = runner_for(package, threads, task["kv_type"], context, max(rows))
    print(json.dumps(visit(runner, context, rows, clock)))


if __name__ == "__main__":
    main()
