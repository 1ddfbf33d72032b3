"""Milliseconds between the tokens of answers that are written while a long prompt is read, with and without a bound.

bench_latency.py PACKAGE [--prompt TOKENS] [--rows N] [--bound MS] [--rounds N] [--kv-type TYPE] [--json FILE]

Rows write answers without end; then the long prompt comes, and what passes between two steps of the engine, and so
between two tokens of every row, is noted until the long prompt's own answer has been written for a while. One of the
rows ends before that, so that a long row has to move. Ways take turns; figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.engine.terms import Terms
from edgeai.measure.throughput import random_prompt
from edgeai.model import Model, default_settings
from edgeai.package.package import Package

UNBOUNDED = 3600.0  # seconds
QUESTION = 200  # tokens of the prompts of the other rows
BEFORE, AFTER = 40, 40  # steps that are measured before the long prompt comes, and after it has been read
LEAVES = 15  # of these, until one row ends


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds between steps before, while and after the long prompt is read, and until its first token."""

    before: list[float]
    reading: list[float]
    after: list[float]
    first_token: float


def intervals(engine: Engine) -> Iterator[tuple[float, set[str]]]:
    """Seconds of each step, and who got a token in it."""
    last = time.perf_counter()
    while engine.has_work:
        names = {name for name, _ in engine.step()}
        now = time.perf_counter()
        yield now - last, names
        last = now


def measure(engine: Engine, rows: int, prompt: int, seed: int) -> Measured:
    """Let rows decode, and a long prompt come in between. Ends with an idle engine."""
    params = SamplingParams(max_tokens=engine.context_length, temperature=0, ignore_eos=True)
    seeds = range(1000 * seed, 1000 * seed + rows + 1)  # no prompt comes twice, and none has repetitions to be drafted
    for number in range(rows):
        question = random_prompt(engine, QUESTION, seeds[number])
        engine.add(str(number), question, params, terms=Terms(client=str(number)))
    steps = intervals(engine)
    while len(next(steps)[1]) < rows:
        pass
    before = [next(steps)[0] for _ in range(BEFORE)]
    engine.add("long", random_prompt(engine, prompt, seeds[rows]), params, terms=Terms(client="long"))
    reading: list[float] = []
    for seconds, names in steps:
        reading.append(seconds)
        if "long" in names:
            break
    after = []
    for number in range(AFTER):
        if number == LEAVES:
            engine.cancel("0")
        after.append(next(steps)[0])
    for name in ("long", *map(str, range(rows))):
        engine.cancel(name)
    return Measured(before, reading, after, sum(reading))


def milliseconds(values: list[float], percentile: float) -> float:
    return float(np.percentile(values, percentile)) * 1000


def summary(rounds: list[Measured]) -> dict[str, float]:
    """Medians over the rounds, in milliseconds; the first token in seconds."""
    figures = {
        "before_p50": [milliseconds(each.before, 50) for each in rounds],
        "p50": [milliseconds(each.reading, 50) for each in rounds],
        "p95": [milliseconds(each.reading, 95) for each in rounds],
        "p99": [milliseconds(each.reading, 99) for each in rounds],
        "worst": [milliseconds(each.reading, 100) for each in rounds],
        "after_worst": [milliseconds(each.after, 100) for each in rounds],
        "first_token_seconds": [each.first_token for each in rounds],
    }
    return {name: round(statistics.median(values), 2) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--prompt", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--bound", type=float, default=250.0, help="milliseconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kv-type", choices=["float32", "int8"], default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    package = Package.open(args.package)
    ways = {f"bound of {args.bound:g} ms": args.bound / 1000, "no bound": UNBOUNDED}
    results: dict[str, list[Measured]] = {way: [] for way in ways}
    for number in range(args.rounds):
        for way, bound in ways.items():
            overrides = {"max_rows": args.rows + 1, "kv_type": args.kv_type, "latency_seconds": bound}
            with Model.load(package, default_settings(package.manifest, **overrides)) as model:
                results[way].append(measure(model.engine, args.rows, args.prompt, seed=number))
    table = {way: summary(rounds) for way, rounds in results.items()}
    print(f"{args.rows} rows decode while a prompt of {args.prompt} tokens is read; milliseconds between two tokens\n")
    print("| | before | p50 | p95 | p99 | worst | worst afterwards | first token of the long prompt, s |")
    print("|---|---|---|---|---|---|---|---|")
    for way, figures in table.items():
        print(f"| {way} | {' | '.join(f'{value:g}' for value in figures.values())} |")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
