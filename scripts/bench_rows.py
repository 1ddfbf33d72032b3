"""Rows of a comparison with a peer: medians over rounds, medians of the ratios within each round, and their table."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def markdown(rows: Sequence[Row], labels: Mapping[str, str], *, peer: str) -> str:
    with_best = any(row.ratio_best is not None for row in rows)
    heads = ["", "edgeai", f"{peer}, same weights", "ratio"]
    heads += ["edgeai, fastest package", f"{peer}, Q4_0", "ratio"] if with_best else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [labels[row.metric], f"{row.ours:g}", f"{row.same:g}", f"{row.ratio_same:.2f}x"]
        if with_best and row.ratio_best is not None:
            cells += [f"{row.ours_best:g}", f"{row.best:g}", f"{row.ratio_best:.2f}x"]
        elif with_best:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_rows(path: Path | None, rows: Sequence[Row], labels: Mapping[str, str]) -> None:
    """Write the rows as JSON, if a file was named."""
    if path is not None:
        document = {"rows": [dataclasses.asdict(row) for row in rows], "labels": dict(labels)}
        path.write_text(json.dumps(document, indent=2) + "\n")
