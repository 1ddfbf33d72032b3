"""Measures `edgeai serve` beside llama-server, in turn: memory, start, and what a token costs.

bench_servers.py PACKAGE GGUF Q4_0_GGUF [--best-package PACKAGE] [--json FILE] [--markdown FILE]

Each round starts every server anew, with the weights in the page cache, and asks all of them the same. A figure is the
median over rounds; a ratio, the peer's figure over ours, is the median of the ratios within each round: above 1 is
better.

llama-server has flash attention on or off, whichever was better at the start for each figure; where figures differ in
that, it runs twice in every round.

Memory is the peak of the resident set (VmHWM) once four conversations have filled the cache of `--context` tokens.
llama-server's additional cache of prompts in RAM is off, and what edgeai keeps of prompts is within its cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench_machine import circumstances, llama_server_version
from bench_rows import Comparison, Sides, add_outputs, names_beside, page, publish, row_of, settings_told
from process_cost import PeakMemory, cost_of
from server_client import chat, chats
from servers import FlashAttention, Server, edgeai_server, find_llama_server, llama_server
from words import some_words

from edgeai.engine.config import KV_BYTES, KVType
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
ANSWER_TOKENS = 256
FILL_CLIENTS = 4
FILL_ANSWER = 48  # tokens
FILL_SPARE = 100  # tokens of each client's share, for the template and what it makes of words
SETTLE_SECONDS = 15.0  # between the last answer and rest: what is tidied up after work is not rest

FLASH: tuple[FlashAttention, ...] = ("on", "off")
PROMPT_WEIGHTS = {"prompt weights": ["--prompt-weights"], "no prompt weights": ["--no-prompt-weights"]}
IDLE = ("idle_cpu", "idle_context_switches")  # are not tried: the setting is the one for the first client

Start = Callable[[], AbstractContextManager[Server]]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: `context` tokens of cache, and seconds of rest."""

    threads: int
    context: int
    idle: float
    kv_type: KVType


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server, in one setting or several; `tried` are the figures of each, of which every metric has its best."""

    starts: Mapping[str, Start]
    tried: Mapping[str, Figures] = field(default_factory=dict)

    def settled(self, plan: Plan) -> Contestant:
        """One that has tried all its settings once, if it has several."""
        if len(self.starts) == 1:
            return self
        here = dataclasses.replace(plan, idle=0)
        return Contestant(self.starts, {name: measure(start, here, 0) for name, start in self.starts.items()})

    def setting(self, metric: str) -> str:
        """The one in which this metric was least."""
        if len(self.starts) == 1:
            return next(iter(self.starts))
        tried = "cpu_seconds_per_1000_tokens" if metric in IDLE else metric
        return min(self.tried, key=lambda name: self.tried[name][tried])

    def measure(self, plan: Plan, number: int) -> Figures:
        wanted = dict.fromkeys(self.setting(metric) for metric in METRICS)
        found = {name: measure(self.starts[name], plan, number) for name in wanted}
        return {metric: found[name][metric] for metric in METRICS if metric in found[name := self.setting(metric)]}


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


def cost_per_token(server: Server, topics: Sequence[str], suffix: str, number: int) -> Figures:
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


def fill(server: Server, context: int) -> None:
    """Conversations that together take the whole cache."""
    share = context // FILL_CLIENTS - FILL_ANSWER - FILL_SPARE
    words = [some_words(random.Random(client), share) for client in range(FILL_CLIENTS)]  # noqa: S311
    texts = [f"{some}. Write a long story with all these words." for some in words]
    replies = chats(server.base_url, texts, max_tokens=FILL_ANSWER)
    held = sum(reply.prompt_tokens for reply in replies)
    if held < 0.85 * context:
        raise SystemExit(f"the prompts filled {held} tokens of {context}: this measures nothing")


def cost_at_rest(server: Server, seconds: float) -> Figures:
    time.sleep(SETTLE_SECONDS)
    before = cost_of(server.pid)
    time.sleep(seconds)
    used = cost_of(server.pid) - before
    minutes = used.seconds / 60
    return {"idle_cpu": used.cpu_seconds / minutes, "idle_context_switches": used.switches / minutes}


def rounds_of(contestants: Mapping[str, Contestant], plan: Plan, rounds: int) -> list[dict[str, Figures]]:
    """Figures by contestant of each round; rest is measured in the last one only."""
    results = []
    for number in range(rounds):
        here = plan if number == rounds - 1 else dataclasses.replace(plan, idle=0)
        results.append({name: contestant.measure(here, number) for name, contestant in contestants.items()})
        print(f"round {number + 1}/{rounds}: {json.dumps(results[-1])}", file=sys.stderr)
    return results


def our_server(package: Path, plan: Plan) -> Contestant:
    budget = plan.context * model_shape(Package.open(package).manifest, plan.kv_type).token_bytes
    options = {"threads": plan.threads, "context": plan.context, "kv_budget": budget}
    settings = PROMPT_WEIGHTS if Package.open(package).prompt_weights else {"": []}

    def start(setting: Sequence[str]) -> Start:
        return lambda: edgeai_server(package, **options, options=["--kv-type", plan.kv_type, *setting])

    return Contestant({name: start(setting) for name, setting in settings.items()})


def peer_server(gguf: Path, plan: Plan) -> Contestant:
    def start(flash: FlashAttention) -> Start:
        return lambda: llama_server(
            gguf,
            threads=plan.threads,
            context=plan.context,
            flash_attention=flash,
            options=["--cache-ram", "0"],
        )

    return Contestant({flash: start(flash) for flash in FLASH})


def compare(sides: Sides, plan: Plan, *, rounds: int) -> Comparison:
    """Measure all of `METRICS`. Raises SystemExit and RuntimeError when a server does not start or dies."""
    contestants = {"ours": our_server(sides.package, plan), "same": peer_server(sides.gguf, plan).settled(plan)}
    if sides.best_package and sides.q4_0:
        contestants["ours_best"] = our_server(sides.best_package, plan).settled(plan)
        contestants["best"] = peer_server(sides.q4_0, plan).settled(plan)
    found = rounds_of(contestants, plan, rounds)
    rows = [
        row
        for metric, (_, decimals, least) in METRICS.items()
        if (row := row_of(metric, found, decimals=decimals, less_is_better=True, least=least)) is not None
    ]
    chosen = {name: contestant for name, contestant in contestants.items() if contestant.tried}
    notes = [
        f"edgeai's KV cache is {plan.kv_type} in the servers, llama-server's float16; {plan.context} tokens of it.",
        settings_text(chosen),
    ]
    facts = {
        "server_kv_type": plan.kv_type,
        "server_context": plan.context,
        "server_settings": {name: contestant.tried for name, contestant in chosen.items()},
        "server_rounds": found,
        "llama_server": llama_server_version(find_llama_server()),
    }
    return Comparison(rows, {metric: label for metric, (label, _, _) in METRICS.items()}, notes, facts)


def settings_text(contestants: Mapping[str, Contestant]) -> str:
    """What each was measured with, and what the other setting gave."""
    told = {
        name: {
            metric: (each.setting(metric), {setting: f"{found[metric]:.2f}" for setting, found in each.tried.items()})
            for metric in METRICS
            if metric not in IDLE
        }
        for name, each in contestants.items()
    }
    return (
        "Every figure is with what was better for it: llama-server's --flash-attn, and edgeai's --prompt-weights where"
        f" the package has some. {settings_told(told)}."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What says how servers are measured; `plan_of` reads it, and --threads."""
    parser.add_argument("--context", type=int, default=8192, help="tokens of cache capacity of the servers")
    parser.add_argument("--kv-type", choices=list(KV_BYTES), default="int8", help="of edgeai's cache in servers")
    parser.add_argument("--idle", type=float, default=60, help="seconds of rest; 0 leaves it out")


def plan_of(args: argparse.Namespace) -> Plan:
    return Plan(args.threads, args.context, args.idle, args.kv_type)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("q4_0", type=Path, help="the same, requantized to Q4_0")
    parser.add_argument("--best-package", type=Path, help="the package to put beside Q4_0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    add_options(parser)
    add_outputs(parser)
    args = parser.parse_args()
    sides = Sides(args.package, args.gguf, args.best_package, args.q4_0)
    found = circumstances(args.threads) + compare(sides, plan_of(args), rounds=args.rounds)
    publish(page(found, names_beside("llama-server")), found, args)


if __name__ == "__main__":
    main()
