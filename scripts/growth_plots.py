"""What `bench_growth` measured, as PNG files. Needs matplotlib (extra `growth`)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth_cells import CONTEXTS, ROWS, Document, Group, least, models_by_size, prompt_seconds, steps_by_context

# Okabe and Ito's colours, which all kinds of eyes tell apart; markers say the same once more.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
STYLES = {"float32": "-", "int8": "--"}
WIDTH, HEIGHT, DPI = 4.6, 3.8, 110
PALETTE = 64  # colours of a file, which makes it a third as large

Points = dict[int, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: `points` of a model and type of cache, over `over`."""

    title: str
    over: str
    value: str
    points: Callable[[Document, str, str], Points]


def decode_speeds(rows: int) -> Callable[[Document, str, str], Points]:
    def points(document: Document, model: str, kv_type: str) -> Points:
        return {at: rows / seconds for at, seconds in steps_by_context(document, model, kv_type, rows).items()}

    return points


def batch_speeds(context: int) -> Callable[[Document, str, str], Points]:
    def points(document: Document, model: str, kv_type: str) -> Points:
        steps = least(document, Group(model, kv_type, context), "decode")
        return {rows: rows / seconds for rows, seconds in steps.items()}

    return points


def memory(rows: int) -> Callable[[Document, str, str], Points]:
    def points(document: Document, model: str, kv_type: str) -> Points:
        found = {at: least(document, Group(model, kv_type, at), "resident").get(rows) for at in CONTEXTS}
        return {at: value / 1e6 for at, value in found.items() if value is not None}

    return points


def prompt_speeds(document: Document, model: str, kv_type: str) -> Points:
    found = {at: least(document, Group(model, kv_type, at), "chunks") for at in CONTEXTS}
    return {at: at / prompt_seconds(chunks, at) for at, chunks in found.items() if chunks}


def last_chunks(document: Document, model: str, kv_type: str) -> Points:
    found = {at: least(document, Group(model, kv_type, at), "chunks") for at in CONTEXTS}
    return {at: 1e3 * chunks[max(chunks)] for at, chunks in found.items() if chunks}


CONTEXT, TOGETHER = "context, tokens", "rows that decode together"
FIGURES = {
    "growth-decode": [
        Panel("Decoding, 1 row", CONTEXT, "tokens/s", decode_speeds(1)),
        Panel("Decoding, 8 rows", CONTEXT, "tokens/s of all rows", decode_speeds(8)),
    ],
    "growth-rows": [
        Panel("Decoding at a context of 128", TOGETHER, "tokens/s of all rows", batch_speeds(128)),
        Panel("Decoding at a context of 2,048", TOGETHER, "tokens/s of all rows", batch_speeds(2048)),
    ],
    "growth-prompt": [
        Panel("Prompts", "prompt, tokens", "tokens/s", prompt_speeds),
        Panel("Last chunk of 128", "prompt, tokens", "ms", last_chunks),
    ],
    "growth-memory": [
        Panel("Memory, 1 row", CONTEXT, "resident, MB", memory(1)),
        Panel("Memory, 8 rows", CONTEXT, "resident, MB", memory(8)),
    ],
}


def plots(document: Document, folder: Path) -> None:
    """A PNG file for each of `FIGURES` that has anything to show."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from PIL import Image  # matplotlib needs it as well

    folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in FIGURES.items():
        panels = [panel for panel in wanted if measured(panel, document)]
        if not panels:
            continue
        size = (WIDTH * len(panels), HEIGHT)
        figure, axes = pyplot.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
        for panel, area in zip(panels, axes[0], strict=True):
            draw(panel, document, area)
        shown = [area.get_legend_handles_labels() for area in axes[0]]
        lines = {label: handle for handles, labels in shown for handle, label in zip(handles, labels, strict=True)}
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=2 * len(panels), fontsize=8, handlelength=3
        )
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=DPI)
        Image.open(drawn).quantize(PALETTE).save(folder / f"{name}.png", optimize=True)
        pyplot.close(figure)


def measured(panel: Panel, document: Document) -> bool:
    """Whether there is anything that makes a line."""
    return any(len(panel.points(document, model, kind)) > 1 for model in document["models"] for kind in STYLES)


def draw(panel: Panel, document: Document, area: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for number, model in enumerate(models_by_size(document)):
        for kv_type, style in STYLES.items():
            points = panel.points(document, model, kv_type)
            if not points:
                continue
            look = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": style, "markersize": 5}
            if kv_type == "int8":
                look["markerfacecolor"] = "white"
            area.plot(list(points), list(points.values()), label=f"{model}, {kv_type}", **look)
    ticks = ROWS if panel.over == TOGETHER else CONTEXTS
    area.set_xscale("log", base=2)
    area.set_yscale("log")
    area.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
    area.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    area.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    area.yaxis.set_minor_locator(NullLocator())
    area.set(title=panel.title, xlabel=panel.over, ylabel=panel.value)
    area.grid(visible=True, alpha=0.3)
