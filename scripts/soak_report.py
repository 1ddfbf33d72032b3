"""What a soak found, as tables in Markdown."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from load_scenarios import quantiles
from soak_clients import Answer
from soak_watch import Growth, Sample

STREAMED = ("short", "shared", "long")
WHOLE = ("whole", "json_schema", "tools")

REFUSED = ("429", "503")  # for now: to be asked again
_WAITS = re.compile(r"batch_\w+ waits: (.*)")  # in the server's log
_MESSAGE = re.compile(r'"message": ?"((?:[^"\\]|\\.)*)"')

Latencies = dict[str, tuple[float, float, float]]  # by kind and metric: p50, p95, and of how many


@dataclass(slots=True)
class Findings:
    """Of a whole run. `problems` must be empty."""

    seconds: float = 0.0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)  # by kind
    latencies: Latencies = field(default_factory=dict)
    growth: list[Growth] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # what shows that faults took effect
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # who was told to come again, and why
    samples: list[Sample] = field(default_factory=list)  # what the server held, once a second
    peer: dict[str, Latencies] = field(default_factory=dict)  # by server, under the same traffic

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        made = {each.name: getattr(self, each.name) for each in fields(self)}
        return made | {name: [asdict(each) for each in made[name]] for name in ("growth", "samples")}


def outcomes(answers: Iterable[Answer]) -> dict[str, Counter[str]]:
    """How often each kind of request ended how."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        found[answer.kind][answer.outcome] += 1
    return dict(found)


def wrong(answers: Iterable[Answer]) -> list[str]:
    """What may not have been answered, the same together, with an example of each."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for answer in answers:
        if not answer.good:
            key = answer.kind, answer.outcome
            counts[key] += 1
            examples.setdefault(key, answer.said)
    return [f"{kind}: {count} times {what}: {examples[kind, what]}" for (kind, what), count in counts.items()]


def refusals(answers: Iterable[Answer], log: str) -> list[str]:
    """Who was told to come again, how often and why: clients by what they were answered, the batch by the log."""
    told: Counter[str] = Counter()
    for answer in answers:
        if answer.outcome in REFUSED:
            said = _MESSAGE.search(answer.said)
            told[f"clients, {answer.outcome}: {said[1] if said else answer.said}"] += 1
    told.update(f"the batch: {why}" for why in _WAITS.findall(log))
    together: Counter[str] = Counter()
    for line, count in told.items():
        together[re.sub(r"\b\d+\b(?= )", "N", line)] += count  # the same words with other figures are the same
    return [f"told to come again, {count} times: {line}" for line, count in sorted(together.items())]


def latencies(answers: Sequence[Answer]) -> Latencies:
    """Seconds of whole answers: to the first token and between two of those that were streamed, else to the end."""
    found: Latencies = {}
    for kind in (*STREAMED, *WHOLE):
        mine = [answer for answer in answers if answer.kind == kind and answer.outcome == "200" and answer.good]
        if kind in WHOLE:
            metrics = {"all of it": [answer.ended - answer.sent for answer in mine]}
        else:
            metrics = {
                "first token": [answer.times[0] - answer.sent for answer in mine if answer.times],
                "between tokens": [
                    b - a for answer in mine for a, b in zip(answer.times, answer.times[1:], strict=False)
                ],
            }
        for metric, values in metrics.items():
            if values:
                p50, p95 = quantiles(values, metric, 0.5, 0.95).values()
                found[f"{kind}, {metric}"] = p50, p95, len(values)
    return found


def report(findings: Findings) -> str:
    """All of it."""
    parts = [outcome_table(findings.outcomes), latency_table(findings.latencies)] if findings.outcomes else []
    if findings.growth:
        parts.append(growth_table(findings.growth))
    if findings.peer:
        parts.append(peer_table(findings.peer))
    parts.append("\n".join(f"- {line}" for line in [*findings.refused, *findings.seen]))
    parts.append("\n".join(f"PROBLEM: {line}" for line in findings.problems) or "No problem was found.")
    return "\n\n".join(parts)


def outcome_table(found: Mapping[str, Counter[str]]) -> str:
    every = sorted({outcome for counts in found.values() for outcome in counts})
    rows = [[kind, found[kind].total(), *(found[kind][outcome] or "" for outcome in every)] for kind in sorted(found)]
    together = sum(found.values(), Counter[str]())
    rows.append(["**all**", together.total(), *(together[outcome] for outcome in every)])
    return table(["requests", "sent", *every], rows)


def latency_table(found: Latencies) -> str:
    rows = [[name, count, f"{p50:.2f}", f"{p95:.2f}"] for name, (p50, p95, count) in found.items()]
    return table(["seconds", "measured", "p50", "p95"], rows)


def growth_table(found: Sequence[Growth]) -> str:
    rows = [
        [each.name, f"{each.median:.1f}", f"{each.grown:+.1f}", f"{each.bound:.1f}" if each.judged else "too short"]
        for each in found
    ]
    return table(["last third", "median", "grown", "may grow"], rows)


def peer_table(found: Mapping[str, Latencies]) -> str:
    """A ratio above 1 is better for edgeai."""
    ours, theirs = found["edgeai"], found["llama-server"]
    rows = []
    for name in ours:
        if name in theirs:
            (a50, a95, count), (b50, b95, other) = ours[name], theirs[name]
            ratios = (f"{b / a:.2f}x" if a else "" for a, b in ((a50, b50), (a95, b95)))
            shown = [value for pair in zip((a50, a95), (b50, b95), ratios, strict=True) for value in _shown(pair)]
            rows.append([name, f"{count} / {other}", *shown])
    heads = ["seconds", "measured", "edgeai, p50", "llama-server", "ratio", "edgeai, p95", "llama-server", "ratio"]
    return table(heads, rows)


def _shown(values: tuple[float, float, str]) -> tuple[str, str, str]:
    ours, theirs, ratio = values
    return f"{ours:.3f}", f"{theirs:.3f}", ratio


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
