"""What `bench_growth` measured, as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from growth_cells import (
    ROWS,
    Document,
    Group,
    context_share,
    groups_of,
    least,
    line,
    models_by_size,
    needed_bytes,
    prompt_seconds,
    steps_by_context,
)

Lines = Iterator[list[str]]
BATCH_CONTEXTS = (128, 2048)


def markdown(title: str, head: list[str], lines: Lines) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def limits(document: Document) -> dict[str, float]:
    """The best that any run of the script measured."""
    return {name: max(run[name] for run in document["limits"]) for name in ("read_gbs", "int8_tops")}


def limits_text(document: Document) -> str:
    found, visits = limits(document), document["visits"].values()
    counts = [len(group) for group in visits]
    others = [100 * visit["others"] for group in visits for visit in group]
    threads = document["threads"]
    clock = "1 thread, its CPU time" if threads == 1 else f"{threads} threads, elapsed time"
    return (
        f"{clock}. This machine reads {found['read_gbs']:.1f} GB/s and multiplies {found['int8_tops']:.2f} int8 TOPS"
        f" (best of {len(document['limits'])} runs). Figures are the least times of {min(counts)} to {max(counts)}"
        f" visits, in which others had {min(others):.0f} to {max(others):.0f} % of its processors (median"
        f" {statistics.median(others):.0f} %)."
    )


def groups(document: Document) -> Iterator[Group]:
    """Those of all models in the document, by size."""
    for model in models_by_size(document):
        yield from groups_of(model, document["models"][model]["context_length"])


def check_lines(document: Document) -> Lines:
    for what, figures in document.get("check", {}).items():
        real, filled = (f"{figures[name]:.1f}" for name in ("real", "filled"))
        yield [what, real, filled, f"{figures['ratio']:.3f} ({figures['least']:.2f} to {figures['most']:.2f})"]


def model_lines(document: Document) -> Lines:
    for model in models_by_size(document):
        about = document["models"][model]
        tokens = [f"{about['token_bytes'][kind] / 1e3:.1f}" for kind in ("float32", "int8")]
        millions, megabytes = f"{about['parameters'] / 1e6:.0f}", f"{about['weights_bytes'] / 1e6:.0f}"
        yield [model, millions, megabytes, *tokens, str(about["context_length"]), str(about["whole_scores_tokens"])]


def decode_lines(document: Document) -> Lines:
    """Tokens per second of all rows together, and the share of the memory bandwidth that one row reaches."""
    for group in groups(document):
        steps, about = least(document, group, "decode"), document["models"][group.model]
        if not steps and needed_bytes(about, group, 1) <= document["most_bytes"]:
            continue  # not visited yet
        cells = [cell(document, group, rows, steps) for rows in ROWS]
        share = "-"
        if 1 in steps:
            read = about["weights_bytes"] + group.context * about["token_bytes"][group.kv_type]
            share = f"{read / steps[1] / limits(document)['read_gbs'] / 1e9:.2f}"
        yield [group.model, group.kv_type, str(group.context), *cells, share]


def cell(document: Document, group: Group, rows: int, steps: dict[int, float]) -> str:
    if rows in steps:
        return f"{rows / steps[rows]:.1f}"
    needed = needed_bytes(document["models"][group.model], group, rows)
    return f"({needed / 1e9:.1f} GB)" if needed > document["most_bytes"] else "-"


def memory_lines(document: Document) -> Lines:
    for group in groups(document):
        resident = least(document, group, "resident")
        if not resident:
            continue
        cells = [f"{resident[rows] / 1e6:.0f}" if rows in resident else "-" for rows in ROWS]
        yield [group.model, group.kv_type, str(group.context), *cells]


def prompt_lines(document: Document) -> Lines:
    for group in groups(document):
        chunks = least(document, group, "chunks")
        if not chunks:
            continue
        seconds = prompt_seconds(chunks, group.context)
        speed = group.context / seconds
        int8 = 2 * document["models"][group.model]["parameters"] * speed / limits(document)["int8_tops"] / 1e12
        milliseconds = [f"{1e3 * chunks[start]:.0f}" for start in (0, max(chunks))]
        share = f"{100 * context_share(chunks, group.context):.0f} %"
        numbers = [f"{speed:.0f}", f"{seconds:.1f}", *milliseconds, share, f"{int8:.3f}"]
        yield [group.model, group.kv_type, str(group.context), *numbers]


def context_lines(document: Document) -> Lines:
    """Where the cache costs as much as the weights: by bytes, and by a line through the steps of one row."""
    for model in models_by_size(document):
        about = document["models"][model]
        for kind, token in about["token_bytes"].items():
            steps = steps_by_context(document, model, kind)
            if len(steps) < 2:
                continue
            constant, slope = line(steps)
            speeds = [f"{about['weights_bytes'] / constant / 1e9:.1f}", f"{token / slope / 1e9:.1f}"]
            times = [f"{1e3 * constant:.1f}", f"{1e6 * slope:.2f}"]
            computed, measured = about["weights_bytes"] / token, constant / slope
            yield [model, kind, *times, *speeds, f"{computed:.0f}", f"{measured:.0f}"]


def rows_lines(document: Document) -> Lines:
    """How many times the tokens of one row more rows make, and from how many on a row costs more than the weights."""
    for model in models_by_size(document):
        for kind in document["models"][model]["token_bytes"]:
            for context in BATCH_CONTEXTS:
                steps = least(document, Group(model, kind, context), "decode")
                if len(steps) < 2:
                    continue
                gains = [f"{rows * steps[1] / steps[rows]:.2f}" if rows in steps else "-" for rows in ROWS[1:]]
                constant, slope = line(steps)
                yield [model, kind, str(context), *gains, f"{1e3 * constant:.1f}", f"{1e3 * slope:.1f}"]


def bend_lines(document: Document) -> Lines:
    """From where on the growing part of a cost is larger than the rest: of a step what tokens of context or rows add,
    of a chunk what it finds in the cache. By lines through what was measured; "-" where there are no two points.
    """
    for model in models_by_size(document):
        for kind in document["models"][model]["token_bytes"]:
            rows = [least(document, Group(model, kind, context), "decode") for context in BATCH_CONTEXTS]
            longest = [found for group in groups(document) if (group.model, group.kv_type) == (model, kind)
                       if len(found := least(document, group, "chunks")) > 1]  # fmt: skip
            chunks = longest[-1] if longest else {}
            bends = [bend(steps_by_context(document, model, kind), 0), *(bend(steps, 1) for steps in rows)]
            if any(each != "-" for each in bends):
                yield [model, kind, *bends, bend(chunks, 0)]


def bend(points: dict[int, float], decimals: int) -> str:
    """Where a line through these points has twice its constant."""
    if len(points) < 2:
        return "-"
    constant, slope = line(points)
    return f"{constant / slope:.{decimals}f}" if constant > 0 and slope > 0 else "-"


def report(document: Document) -> str:
    """All tables."""
    group, rows = ["model", "KV cache", "context"], [f"rows {count}" for count in ROWS]
    sizes = ["model", "parameters, M", "weights, MB", "float32 KV, KB a token", "int8 KV, KB a token"]
    check = ["", "real prompts, tokens/s", "filled caches, tokens/s", "ratio (least to most)"]
    context = ["model", "KV cache", "no context, ms", "a token of it, µs", "weights, GB/s", "cache, GB/s"]
    batch = [*group, *(f"gain of {count}" for count in ROWS[1:]), "however many, ms", "each row, ms"]
    bends = [f"rows at {context}" for context in BATCH_CONTEXTS]
    chunk = ["tokens/s", "whole prompt, s", "first chunk, ms", "last chunk, ms", "due to context", "share of int8 rate"]
    sections = [
        ("Check", check, check_lines(document)),
        ("Models", [*sizes, "own context", "whole scores up to"], model_lines(document)),
        (
            "Where the curves bend",
            [*group[:2], "a row's context", *bends, "a chunk's context"],
            bend_lines(document),
        ),
        ("Decoding, tokens/s", [*group, *rows, "share of bandwidth, row 1"], decode_lines(document)),
        ("Context", [*context, "as much as weights, by bytes", "measured"], context_lines(document)),
        ("Rows", batch, rows_lines(document)),
        ("Prompts", [*group, *chunk], prompt_lines(document)),
        ("Resident memory, MB", [*group, *rows], memory_lines(document)),
    ]
    return "\n\n".join([limits_text(document), *(markdown(*section) for section in sections)])
