"""What `bench_growth` measured, as a Markdown table and as plots."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

PLOTS = {"decode": "context", "prefill": "context", "batch": "rows", "memory": "context"}
Series = dict[str, list[tuple[int, float]]]


def rows_of(document: dict[str, Any]) -> list[tuple[str, str, int, int, dict[str, float]]]:
    """Model, kind, context, rows and figures of every cell, in order of size."""
    found = []
    for key, figures in document["cells"].items():
        model, kind, context, rows = key.split("/")
        found.append((model, kind, int(context), int(rows), figures))
    sizes = {name: about["parameters"] for name, about in document["models"].items()}
    return sorted(found, key=lambda cell: (sizes[cell[0]], cell[1], cell[3], cell[2]))


def share(document: dict[str, Any], model: str, kind: str, context: int, rows: int, value: float) -> float:
    """Of the machine's limit that this speed reaches: memory read when decoding, int8 products when reading prompts."""
    about, limits = document["models"][model], document["limits"]
    if kind == "prefill":
        return float(2 * about["parameters"] * value / (limits["int8_tops"] * 1e12))
    read = about["weights_bytes"] + rows * context * about["kv_token_bytes"]
    return float(value / rows * read / (limits["read_gbs"] * 1e9))


def table(document: dict[str, Any]) -> str:
    limits = document["limits"]
    lines = [
        f"limits of this machine: {limits['read_gbs']:.1f} GB/s read, {limits['int8_tops']:.2f} T int8 operations/s\n",
        "| model | what | context | rows | tokens/s | share of the limit | resident, MB | peak, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, kind, context, rows, figures in rows_of(document):
        reached = share(document, model, kind, context, rows, figures["value"])
        memory = f"{figures['resident_mb']:.0f} | {figures['peak_mb']:.0f}"
        lines.append(f"| {model} | {kind} | {context} | {rows} | {figures['value']:.1f} | {reached:.2f} | {memory} |")
    return "\n".join(lines)


def series(document: dict[str, Any], plot: str) -> Series:
    """Points of one plot by model."""
    found: Series = defaultdict(list)
    for model, kind, context, rows, figures in rows_of(document):
        if plot == "batch" and kind == "decode" and context == 128:
            found[model].append((rows, figures["value"]))
        elif plot == "memory" and kind == "decode" and rows == 1:
            found[model].append((context, figures["peak_mb"]))
        elif plot == kind and rows == 1:
            found[model].append((context, figures["value"]))
    return found


def plots(document: dict[str, Any], folder: Path) -> None:
    """growth-decode.png, growth-prefill.png, growth-batch.png and growth-memory.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for plot, over in PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for model, points in series(document, plot).items():
            axes.plot(*zip(*points, strict=True), marker="o", label=model)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(over)
        axes.set_ylabel("peak memory, MB" if plot == "memory" else f"{plot}, tokens/s")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
        figure.tight_layout()
        figure.savefig(folder / f"growth-{plot}.png", dpi=110)
        pyplot.close(figure)
