"""Rows of a comparison with a peer: medians over rounds, medians of the ratios within each round, and their table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeai.package.durable import write_file

Round = Mapping[str, Mapping[str, float]]  # by contestant ("ours", "same", "ours_best", "best") and metric


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


@dataclass(frozen=True, slots=True)
class Sides:
    """What is put beside what: on the same weights, and each side's fastest, if both are named."""

    package: Path
    gguf: Path
    best_package: Path | None
    q4_0: Path | None


@dataclass(slots=True)
class Comparison:
    """What a benchmark found: rows with their labels by metric, what is to be known about them in sentences (`notes`),
    and what else its JSON has (`facts`).
    """

    rows: list[Row] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.rows + other.rows, self.labels | other.labels, self.notes + other.notes, self.facts | other.facts
        )


def row_of(
    metric: str, rounds: Sequence[Round], *, decimals: int, less_is_better: bool = False, least: float = 0.0
) -> Row | None:
    """Medians and ratios of one metric; None where it was not measured.

    What is below `least` is nothing at all, and is counted as that much in a ratio.
    """
    found = [{name: figures[metric] for name, figures in one.items() if metric in figures} for one in rounds]
    found = [one for one in found if one]
    if not found:
        return None

    def middle(name: str) -> float | None:
        return round(statistics.median(one[name] for one in found), decimals or None) if name in found[0] else None

    def ratio(ours: str, peer: str) -> float | None:
        if peer not in found[0] or ours not in found[0]:
            return None
        pairs = [(max(one[ours], least), max(one[peer], least)) for one in found]
        return round(statistics.median(b / a if less_is_better else a / b for a, b in pairs), 3)

    return Row(
        metric,
        middle("ours") or 0.0,
        middle("same") or 0.0,
        middle("ours_best"),
        middle("best"),
        ratio("ours", "same") or 0.0,
        ratio("ours_best", "best"),
    )


def names_beside(peer: str) -> dict[str, str]:
    """Headings for a peer on the same weights, and on its fastest."""
    return {
        "ours": "edgeai",
        "same": f"{peer}, same weights",
        "ours_best": "edgeai, fastest package",
        "best": f"{peer}, Q4_0",
    }


def markdown(rows: Sequence[Row], labels: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The table. `names` are the headings of the contestants; without "ours_best", "best" stands beside "ours"."""
    pairs = [("ours", "same", "ratio_same")]
    if any(row.ratio_best is not None for row in rows):
        pairs.append(("ours_best", "best", "ratio_best"))
    shown = [[name for name in pair if name in names or name.startswith("ratio")] for pair in pairs]
    heads = ["", *(names.get(name, "ratio") for pair in shown for name in pair)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [_cell(getattr(row, name), name) for pair in shown for name in pair]
        lines.append(f"| {' | '.join([labels[row.metric], *cells])} |")
    return "\n".join(lines)


def _cell(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f}x" if name.startswith("ratio") else f"{value:g}"


def page(found: Comparison, names: Mapping[str, str]) -> str:
    """The table, and what is to be known about it."""
    return "\n\n".join([markdown(found.rows, found.labels, names), *found.notes])


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where what was found is written, besides standard output."""
    parser.add_argument("--json", type=Path, help="also write rows, versions and the machine to this file")
    parser.add_argument("--markdown", type=Path, help="also write what is printed to this file")


def publish(text: str, found: Comparison, args: argparse.Namespace) -> None:
    """Print a table with what belongs to it, and write the files that `add_outputs` asked for."""
    print(text)
    if args.markdown:
        write_file(args.markdown, f"{text}\n".encode())
    if args.json:
        document = {"rows": [dataclasses.asdict(row) for row in found.rows], "labels": found.labels, **found.facts}
        write_file(args.json, (json.dumps(document, indent=2) + "\n").encode())


def settings_told(tried: Mapping[str, Mapping[str, tuple[str, Mapping[str, str]]]]) -> str:
    """What peers were measured with: by contestant and metric the setting that was chosen, and each one's figure."""
    files = {"same": "the same weights", "ours_best": "edgeai's fastest package", "best": "Q4_0"}
    parts = []
    for name, metrics in tried.items():
        each = [
            f"{metric} {chosen} ({' and '.join(f'{figure} {setting}' for setting, figure in figures.items())})"
            for metric, (chosen, figures) in metrics.items()
        ]
        parts.append(f"{files[name]}: {', '.join(each)}")
    return "; ".join(parts)
