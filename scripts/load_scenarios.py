"""What a server under load is asked, and the figures of it. Times of requests that failed are infinite."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from load_traffic import Traffic, arrivals, gaps, pieces
from server_client import Reply, chats

SHARED_TOKENS = 48  # of a prompt at most, that may come from a cache: the template's own beginning


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything, the same for all servers."""

    chatters: int = 4  # that stream while the long prompt is read
    long_words: int = 7800
    flood: int = 16  # requests that one client always has open
    seconds: float = 40.0  # of traffic for fair shares and priorities
    pause: float = 1.0  # mean seconds between an answer and that client's next question
    rate: float = 0.4  # interactive requests a second beside the batch
    lead: float = 3.0  # seconds of traffic before anything is measured
    context: int = 8192  # of one conversation


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one server in one scenario, how many requests came to an end, and what failures said."""

    figures: Mapping[str, float]
    requests: int
    failures: Sequence[str] = field(default=())


def quantiles(values: Sequence[float], name: str, *shares: float) -> dict[str, float]:
    """Percentiles by `name_pNN`, the nearest that was measured from above. Raises `ValueError` without any value."""
    if not values:
        raise ValueError(f"nothing was measured for {name}")
    found = np.quantile(np.asarray(values), shares, method="higher")
    return {f"{name}_p{share * 100:g}": float(value) for share, value in zip(shares, found, strict=True)}


def waits(traffic: Traffic, client: str, name: str) -> dict[str, float]:
    """Seconds to the first token of this client's requests, from the moment of sending."""
    answered = [reply.first_token - reply.sent for reply in traffic.replies[client]]
    return quantiles([*answered, *(math.inf for _ in traffic.failures[client])], name, 0.5, 0.95)


def long_prompt(base_url: str, plan: Plan, seed: int) -> Outcome:
    """Short chats are written while a prompt that fills most of the context is read."""
    with Traffic(base_url, seed) as traffic:
        traffic.keep_asking("chatters", plan.chatters, words=20, max_tokens=128)
        time.sleep(plan.lead)
        sent = time.perf_counter()
        reply = traffic.ask("reader", words=plan.long_words, max_tokens=8)
        read = reply.first_token if reply else time.perf_counter()
    if reply and not 0.9 * plan.context < reply.prompt_tokens <= plan.context:
        raise SystemExit(f"the long prompt had {reply.prompt_tokens} tokens of {plan.context}: this measures nothing")
    chatters = traffic.replies["chatters"]
    between = [1000 * gap for gap in gaps(chatters, sent, read)]
    written = pieces(chatters, sent, read)
    figures = quantiles(between, "long_gap", 0.5, 0.95, 0.99) | {
        "long_gap_max": max(between),
        "long_first_token": read - sent if reply else math.inf,
        "long_written": written / (read - sent),
        "long_all": (written + reply.prompt_tokens) / (read - sent) if reply else 0.0,
    }
    return outcome(traffic, figures)


def fair_shares(base_url: str, plan: Plan, seed: int) -> Outcome:
    """One client floods the server, another one asks one question at a time."""
    chance = random.Random(seed)  # noqa: S311
    with Traffic(base_url, seed) as traffic:
        traffic.keep_asking("flood", plan.flood, words=150, max_tokens=96)
        time.sleep(plan.lead)
        started = time.perf_counter()
        while time.perf_counter() < started + plan.seconds:
            traffic.ask("single", words=20, max_tokens=24)
            time.sleep(chance.expovariate(1 / plan.pause))
        ended = time.perf_counter()
    figures = waits(traffic, "single", "fair_wait")
    everything = [reply for replies in traffic.replies.values() for reply in replies]
    return outcome(traffic, figures | {"fair_written": pieces(everything, started, ended) / (ended - started)})


def behind_interactive(base_url: str, plan: Plan, seed: int) -> Outcome:
    """Batch work keeps the server full, and interactive questions of the same client come in between."""
    with Traffic(base_url, seed) as traffic:
        traffic.keep_asking("batch", plan.flood, words=150, max_tokens=96, key="office", service_tier="flex")
        time.sleep(plan.lead)
        started = time.perf_counter()
        moments = arrivals(seed, rate=plan.rate, seconds=plan.seconds)
        traffic.ask_at("person", moments, words=20, max_tokens=24, key="office")
        ended = max(started + plan.seconds, time.perf_counter())
    figures = waits(traffic, "person", "batch_wait")
    written = pieces(traffic.replies["batch"], started, ended)
    return outcome(traffic, figures | {"batch_written": written / (ended - started)})


def outcome(traffic: Traffic, figures: Mapping[str, float]) -> Outcome:
    """With what failed. Raises SystemExit when a prefix cache had a part in the figures."""
    replies = [reply for some in traffic.replies.values() for reply in some]
    if reused := [reply.cached_tokens for reply in replies if reply.cached_tokens > SHARED_TOKENS]:
        raise SystemExit(f"{len(reused)} of {len(replies)} prompts came from a cache: this measures nothing")
    failures = [f"{client}: {text}" for client, texts in traffic.failures.items() for text in texts]
    return Outcome(figures, traffic.requests(), failures)


def warm_up(base_url: str) -> list[Reply]:
    """All rows once, so that nothing is done for the first time while it is measured."""
    return chats(base_url, [f"{number} {number * 7919}: what is this?" for number in range(8)], max_tokens=16)


Scenario = Callable[[str, Plan, int], Outcome]
SCENARIOS: Mapping[str, Scenario] = {"long": long_prompt, "fair": fair_shares, "batch": behind_interactive}
