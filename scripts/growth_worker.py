"""Measures one model in a process of its own: growth_worker.py PACKAGE THREADS; reads [kind, context, rows] a line.

Kinds: "decode" (tokens per second of `rows` requests at a context of about `context`) and "prefill" (of a prompt of
`context` tokens). The engine is made anew where the context grows, so that its reservation fits. Answers are JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
from pathlib import Path

import psutil

from edgeai.engine.engine import Engine
from edgeai.measure.throughput import DECODE_TOKENS, decode_speed, prefill_speed
from edgeai.model import Model, default_settings, model_shape
from edgeai.package.package import Package

ROUNDS = 3
SPARE = DECODE_TOKENS + 64  # tokens of an answer beyond its context, and the last ones of other rows


def engine_for(package: Package, threads: int, context: int, rows: int) -> Engine:
    """An engine that holds so many rows, without prefix cache and drafts: every token is computed, one by one."""
    length = context + SPARE + rows
    budget = (rows + 1) * model_shape(package.manifest).token_bytes * (length + 64)
    settings = default_settings(
        package.manifest,
        threads=threads,
        max_rows=rows,
        max_context=length,
        kv_budget_bytes=budget,
        prefix_cache=False,
        draft_tokens=0,
    )
    return Model.load(package, settings).engine


def cell(engine: Engine, kind: str, context: int, rows: int) -> dict[str, float]:
    """Median over rounds, with memory; long prompts are read once."""
    rounds = ROUNDS if context * rows <= 8192 else 1
    if kind == "prefill":
        values = [prefill_speed(engine, context, seed=100 + number) for number in range(rounds)]
    else:
        values = [decode_speed(engine, context, rows=rows, seed=1000 * (number + 1)) for number in range(rounds)]
    resident = psutil.Process().memory_info().rss / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"value": statistics.median(values), "resident_mb": round(resident, 1), "peak_mb": round(peak, 1)}


def main() -> None:
    package, threads = Package.open(Path(sys.argv[1])), int(sys.argv[2])
    kind, context, rows = json.loads(sys.stdin.readline())
    print(json.dumps(cell(engine_for(package, threads, context, rows), kind, context, rows)))


if __name__ == "__main__":
    main()
