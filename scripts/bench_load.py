"""Measures `edgeai serve` beside llama-server under the same traffic, in turn: who waits how long.

bench_load.py PACKAGE GGUF [--scenario long fair batch] [--rounds N] [--json FILE] [--state FILE --seconds N]

- long: short chats are written while a prompt of about 7,900 tokens is read.
- fair: one client (by API key) keeps 16 requests open, another one asks one question at a time.
- batch: 16 requests of `service_tier: "flex"` are open all the time, interactive ones come in between.

Every scenario of every round starts each server anew and asks all of them the same; what is drawn, moments and texts,
follows from the round's number. No prompt comes from a cache, which is checked. A figure is the median over rounds, a
ratio the median of the ratios within each round: above 1 is better. Requests that failed are counted, and their waits
are infinite.

llama-server runs twice: as it comes, and with the batches of 64 tokens that keep its gaps short.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from bench_rows import Comparison, Row, add_outputs, page, publish, row_of
from load_scenarios import SCENARIOS, Outcome, Plan, warm_up
from servers import Server, edgeai_server, llama_server

from edgeai.engine.config import KVType
from edgeai.model import model_shape
from edgeai.package.package import Package

SLOTS = 8

# metric: label, decimals, whether less is better
METRICS = {
    "long_gap_p50": ("between two tokens while a long prompt is read, p50, ms", 1, True),
    "long_gap_p95": ("p95, ms", 1, True),
    "long_gap_p99": ("p99, ms", 1, True),
    "long_gap_max": ("longest, ms", 1, True),
    "long_first_token": ("first token of the long prompt, s", 1, True),
    "long_written": ("tokens/s written meanwhile", 1, False),
    "long_all": ("tokens/s read and written meanwhile", 1, False),
    "fair_wait_p50": ("first token of one client while another floods, p50, s", 2, True),
    "fair_wait_p95": ("p95, s", 2, True),
    "fair_written": ("tokens/s for both", 1, False),
    "batch_wait_p50": ("first token of interactive requests beside a batch, p50, s", 2, True),
    "batch_wait_p95": ("p95, s", 2, True),
    "batch_written": ("tokens/s of the batch meanwhile", 1, False),
}
CONTESTANTS = {"ours": "edgeai", "same": "llama-server", "best": "llama-server, batches of 64"}

Start = Callable[[], AbstractContextManager[Server]]


class Rounds:
    """Outcomes by scenario, round and contestant; kept in a file from one run to the next, if there is one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        if file and file.exists():
            for key, found in json.loads(file.read_text()).items():
                self._outcomes[key] = {name: Outcome(**outcome) for name, outcome in found.items()}

    def __contains__(self, key: tuple[str, int]) -> bool:
        return self._name(*key) in self._outcomes

    def add(self, scenario: str, number: int, outcomes: Mapping[str, Outcome]) -> None:
        self._outcomes[self._name(scenario, number)] = dict(outcomes)
        if self._file:
            document = {
                key: {name: dataclasses.asdict(outcome) for name, outcome in found.items()}
                for key, found in self._outcomes.items()
            }
            self._file.write_text(json.dumps(document, indent=1))

    def rows(self) -> list[Row]:
        """`same` and `best` are both compared with `ours`."""
        rounds = [{name: outcome.figures for name, outcome in found.items()} for found in self._outcomes.values()]
        beside = [figures | {"ours_best": figures["ours"]} for figures in rounds]
        rows = [
            row_of(metric, beside, decimals=decimals, less_is_better=less)
            for metric, (_, decimals, less) in METRICS.items()
        ]
        return [row for row in rows if row is not None]

    def failures(self) -> dict[str, tuple[int, Counter[str]]]:
        """By contestant: how many requests there were, and how often each failure was met."""
        found: dict[str, tuple[int, Counter[str]]] = {}
        for name in CONTESTANTS:
            outcomes = [some[name] for some in self._outcomes.values()]
            told = Counter(text for outcome in outcomes for text in outcome.failures)
            found[name] = sum(outcome.requests for outcome in outcomes), told
        return found

    @staticmethod
    def _name(scenario: str, number: int) -> str:
        return f"{scenario} {number}"


def measure(contestants: Mapping[str, Start], scenario: str, plan: Plan, number: int) -> dict[str, Outcome]:
    """One round: each server anew, with the same seed; every round begins with another one."""
    found, names = {}, list(contestants)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        with contestants[name]() as server:
            warm_up(server.base_url)
            found[name] = SCENARIOS[scenario](server.base_url, plan, seed=1000 + number)
        print(f"{scenario} {number + 1}: {name} {json.dumps(dataclasses.asdict(found[name]))}", file=sys.stderr)
    return found


def contestants_of(package: Path, gguf: Path, threads: int, context: int, kv_type: KVType) -> dict[str, Start]:
    """The servers, each with a cache of `context` tokens for every slot."""
    budget = SLOTS * context * model_shape(Package.open(package).manifest, kv_type).token_bytes
    ours = ["--kv-type", kv_type]
    small = ["--batch-size", "64", "--ubatch-size", "64"]

    def peer(*options: str) -> Start:
        every = {"context": SLOTS * context, "parallel": SLOTS, "unified": False}
        return lambda: llama_server(gguf, threads=threads, **every, options=["--cache-ram", "0", *options])

    return {
        "ours": lambda: edgeai_server(package, threads=threads, context=context, kv_budget=budget, options=ours),
        "same": peer(),
        "best": peer(*small),
    }


def said(failures: Mapping[str, tuple[int, Counter[str]]]) -> str:
    lines = []
    for name, (requests, told) in failures.items():
        lines.append(f"{CONTESTANTS[name]}: {told.total()} of {requests} requests failed.")
        lines += [f"  {count} times {text}" for text, count in told.most_common(5)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-type", choices=["float32", "int8"], default="float32", help="of edgeai's cache")
    add_outputs(parser)
    parser.add_argument("--state", type=Path, help="keep what was measured in this file; again to continue")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing new after this time")
    args = parser.parse_args()
    plan, end = Plan(), time.monotonic() + args.seconds
    contestants = contestants_of(args.package, args.gguf, args.threads, plan.context, args.kv_type)
    rounds = Rounds(args.state)
    for number in range(args.rounds):
        for scenario in args.scenario:
            if (scenario, number) not in rounds and time.monotonic() < end:
                rounds.add(scenario, number, measure(contestants, scenario, plan, number))
    labels, failures = {metric: label for metric, (label, *_) in METRICS.items()}, rounds.failures()
    found = Comparison(rounds.rows(), labels, [said(failures)], {"failures": failures})
    publish(page(found, CONTESTANTS), found, args)


if __name__ == "__main__":
    main()
