"""Measures `edgeai serve` beside llama-server, in turn: memory, start, and what a token costs.

bench_servers.py PACKAGE GGUF Q4_0_GGUF [--best-package PACKAGE] [--json FILE]

Each round starts every server anew, with the weights in the page cache, and asks all of them the same. A figure is the
median over rounds; a ratio, the peer's figure over ours, is the median of the ratios within each round: above 1 is
better.

Memory is the peak of the resident set (VmHWM) once four conversations have filled the cache of `--context` tokens.
llama-server's additional cache of prompts in RAM is off, and what edgeai keeps of prompts is within its cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from process_cost import PeakMemory, cost_of
from server_client import chat, chats
from servers import RunningServer, edgeai_server, llama_server

from edgeai.model import model_shape
from edgeai.package.package import Package

# metric: label, decimals, and the least that counts: what is below is nothing at all, not a ratio
METRICS = {
    "peak_rss": ("peak memory, MiB", 0, 0.0),
    "first_token": ("start of the process to first token, s", 2, 0.0),
    "cpu_seconds_per_1000_tokens": ("CPU-seconds for 1,000 tokens, 1 client", 2, 0.0),
    "cpu_seconds_per_1000_tokens_batch8": ("CPU-seconds for 1,000 tokens, 8 clients", 2, 0.0),
    "context_switches_per_1000_tokens": ("context switches for 1,000 tokens, 1 client", 0, 1.0),
    "context_switches_per_1000_tokens_batch8": ("context switches for 1,000 tokens, 8 clients", 0, 1.0),
    "idle_cpu": ("CPU-seconds in a minute at rest", 3, 0.001),
    "idle_context_switches": ("context switches in a minute at rest", 0, 1.0),
}
GREETING = "Hello, who are you?"
TOPICS = ("the sea", "a garden", "old bridges", "winter", "bread", "a long journey", "the night sky", "clocks")
WORDS = ("water", "pump", "valve", "field", "road", "market", "school", "river", "house", "tree", "stone", "winter")
ANSWER_TOKENS = 256
FILL_CLIENTS = 4
FILL_ANSWER = 48  # tokens
FILL_SPARE = 100  # tokens of each client's share, for the template and what it makes of words
SETTLE_SECONDS = 2.0  # between the last answer and rest

Start = Callable[[], AbstractContextManager[RunningServer]]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: `context` tokens of cache, and seconds of rest."""

    threads: int
    context: int
    idle: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ratios above 1 mean that edgeai is better. `best` is compared with `ours_best`."""

    metric: str
    ours: float
    same: float
    ours_best: float | None
    best: float | None
    ratio_same: float
    ratio_best: float | None


def measure(start: Start, plan: Plan, number: int) -> Figures:
    """All figures of one server; those at rest only with `plan.idle`."""
    figures: Figures = {}
    with start() as server, PeakMemory(server.pid) as memory:
        figures["first_token"] = chat(server.base_url, GREETING, max_tokens=8).first_token - server.started
        figures |= cost_per_token(server, TOPICS[:1], "", number)
        figures |= cost_per_token(server, TOPICS, "_batch8", number)
        fill(server, plan.context)
        if plan.idle:
            figures |= cost_at_rest(server, plan.idle)
    return figures | {"peak_rss": memory.mib}


def cost_per_token(server: RunningServer, topics: Sequence[str], suffix: str, number: int) -> Figures:
    """Free text about each topic at once; the short prompts' share is in it."""
    before = cost_of(server.pid)
    asked = [f"Write a long story about {topic}." for topic in topics]
    replies = chats(server.base_url, asked, max_tokens=ANSWER_TOKENS, seed=100 * number + 100)
    used = cost_of(server.pid) - before
    thousands = sum(reply.tokens for reply in replies) / 1000
    return {
        f"cpu_seconds_per_1000_tokens{suffix}": used.cpu_seconds / thousands,
        f"context_switches_per_1000_tokens{suffix}": used.switches / thousands,
    }


def fill(server: RunningServer, context: int) -> None:
    """Conversations that together take the whole cache."""
    share = context // FILL_CLIENTS - FILL_ANSWER - FILL_SPARE
    texts = [" ".join(random.Random(client).choices(WORDS, k=share)) for client in range(FILL_CLIENTS)]  # noqa: S311
    replies = chats(server.base_url, texts, max_tokens=FILL_ANSWER)
    held = sum(reply.prompt_tokens for reply in replies)
    if held < 0.85 * context:
        raise SystemExit(f"the prompts filled {held} tokens of {context}: this measures nothing")


def cost_at_rest(server: RunningServer, seconds: float) -> Figures:
    time.sleep(SETTLE_SECONDS)
    before = cost_of(server.pid)
    time.sleep(seconds)
    used = cost_of(server.pid) - before
    minutes = used.seconds / 60
    return {"idle_cpu": used.cpu_seconds / minutes, "idle_context_switches": used.switches / minutes}


def rounds_of(contestants: Mapping[str, Start], plan: Plan, rounds: int) -> list[dict[str, Figures]]:
    """Figures by contestant of each round; rest is measured in the last one only."""
    results = []
    for number in range(rounds):
        here = plan if number == rounds - 1 else dataclasses.replace(plan, idle=0)
        results.append({name: measure(start, here, number) for name, start in contestants.items()})
        print(f"round {number + 1}/{rounds}: {json.dumps(results[-1])}", file=sys.stderr)
    return results


def row_of(metric: str, rounds: Sequence[Mapping[str, Figures]]) -> Row | None:
    """Medians and ratios of one metric; None where it was not measured."""
    found = [{name: figures[metric] for name, figures in one.items() if metric in figures} for one in rounds]
    found = [one for one in found if one]
    if not found:
        return None
    _, decimals, least = METRICS[metric]

    def middle(name: str) -> float | None:
        return round(statistics.median(one[name] for one in found), decimals or None) if name in found[0] else None

    def ratio(ours: str, peer: str) -> float | None:
        if peer not in found[0] or ours not in found[0]:
            return None
        return round(statistics.median(max(one[peer], least) / max(one[ours], least) for one in found), 3)

    return Row(
        metric,
        middle("ours") or 0.0,
        middle("same") or 0.0,
        middle("ours_best"),
        middle("best"),
        ratio("ours", "same") or 0.0,
        ratio("ours_best", "best"),
    )


def markdown(rows: Sequence[Row]) -> str:
    with_best = rows[0].ratio_best is not None
    heads = ["", "edgeai", "llama-server, same weights", "ratio"]
    heads += ["edgeai, best package", "llama-server, Q4_0", "ratio"] if with_best else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [METRICS[row.metric][0], f"{row.ours:g}", f"{row.same:g}", f"{row.ratio_same:.2f}x"]
        cells += [f"{row.ours_best:g}", f"{row.best:g}", f"{row.ratio_best:.2f}x"] if with_best else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def our_server(package: Path, plan: Plan) -> Start:
    budget = plan.context * model_shape(Package.open(package).manifest).token_bytes
    return lambda: edgeai_server(package, threads=plan.threads, context=plan.context, kv_budget=budget)


def peer_server(gguf: Path, plan: Plan) -> Start:
    return lambda: llama_server(gguf, threads=plan.threads, context=plan.context, options=["--cache-ram", "0"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("q4_0", type=Path, help="the same, requantized to Q4_0")
    parser.add_argument("--best-package", type=Path, help="the package to put beside Q4_0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=8192, help="tokens of cache capacity")
    parser.add_argument("--idle", type=float, default=60, help="seconds of rest; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    plan = Plan(args.threads, args.context, args.idle)
    contestants = {"ours": our_server(args.package, plan), "same": peer_server(args.gguf, plan)}
    if args.best_package:
        contestants |= {"ours_best": our_server(args.best_package, plan), "best": peer_server(args.q4_0, plan)}
    rounds = rounds_of(contestants, plan, args.rounds)
    rows = [row for metric in METRICS if (row := row_of(metric, rounds)) is not None]
    print(markdown(rows))
    if args.json:
        document = {"rows": [dataclasses.asdict(row) for row in rows]}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
