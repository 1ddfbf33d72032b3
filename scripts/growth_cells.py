"""What `bench_growth` measures and what follows from it: plain arithmetic over the JSON document of its figures.

The document has `limits` (of the machine, one entry for each run of the script), `models` (sizes in bytes), `check`
(figures beside those of real prompts), and `visits`: for each group, a model at one context with one type of KV cache,
the figures of every process that measured it. A visit's `decode` has seconds of a step by rows, its `chunks` seconds of
a chunk by where it starts, its `resident` bytes by rows; `others` is the part of the machine that others had meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeai.engine.config import EngineSettings

CHUNK = EngineSettings().chunk_tokens
CONTEXTS = (128, 512, 2048, 4096, 8192, 16384)
INT8_CONTEXTS = (128, 2048, 4096, 8192, 16384)  # at 512 tokens the cache is small beside the weights
ROWS = (1, 2, 4, 8, 16, 32)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """What one process measures: all numbers of rows, and a prompt's chunks, at one context."""

    model: str
    kv_type: str
    context: int

    @property
    def key(self) -> str:
        return f"{self.model}/{self.kv_type}/{self.context}"


def groups_of(model: str, context_length: int, contexts: Sequence[int] = CONTEXTS) -> list[Group]:
    """Every group of a model at these contexts, as far as its own context goes."""
    kinds = {"float32": CONTEXTS, "int8": INT8_CONTEXTS}
    return [
        Group(model, kind, context)
        for kind, usual in kinds.items()
        for context in usual
        if context in contexts and context <= context_length
    ]


def needed_bytes(about: Mapping[str, Any], group: Group, rows: int) -> int:
    """Memory for so many rows whose caches are full: estimated for the model, exact for the cache."""
    return int(about["load_bytes"] + rows * group.context * about["token_bytes"][group.kv_type])


def rows_that_fit(about: Mapping[str, Any], group: Group, most_bytes: float, wanted: Sequence[int] = ROWS) -> list[int]:
    return [rows for rows in ROWS if rows in wanted and needed_bytes(about, group, rows) <= most_bytes]


def next_group(wanted: Mapping[Group, Sequence[int]], document: Document, visits: int) -> Group | None:
    """The one with the fewest visits that measured all of its rows, in order of context, until all have enough: so all
    are spread over the time.
    """
    done = {group: _visits_with(document, group, rows) for group, rows in wanted.items()}
    waiting = [group for group in wanted if done[group] < visits]
    return min(waiting, key=lambda group: (done[group], group.context), default=None)


def _visits_with(document: Document, group: Group, rows: Sequence[int]) -> int:
    visits = document["visits"].get(group.key, ())
    return sum({str(count) for count in rows} <= {str(count) for count in visit["decode"]} for visit in visits)


def merged(document: Document, other: Document) -> Document:
    """Both documents' visits, as if one had gone on with the other. Raises ValueError where they do not fit."""
    if document["threads"] != other["threads"]:
        raise ValueError(f"one was measured with --threads {document['threads']}, the other with {other['threads']}")
    for model in document["models"].keys() & other["models"].keys():
        if document["models"][model] != other["models"][model]:
            raise ValueError(f"they measured different packages of {model}")
    visits = {key: list(found) for key, found in document["visits"].items()}
    for key, found in other["visits"].items():
        visits[key] = [*visits.get(key, ()), *(visit for visit in found if visit not in visits.get(key, ()))]
    limits = [*document["limits"], *(run for run in other["limits"] if run not in document["limits"])]
    return {**other, **document, "models": other["models"] | document["models"], "limits": limits, "visits": visits}


def least(document: Document, group: Group, what: str) -> dict[int, float]:
    """By rows (`decode`, seconds of a step; `resident`, bytes) or by start (`chunks`, seconds): the least of visits,
    for whatever else a machine does only ever adds to them.
    """
    found: dict[int, float] = {}
    for visit in document["visits"].get(group.key, ()):
        for at, value in visit[what].items():
            found[int(at)] = min(value, found.get(int(at), value))
    return dict(sorted(found.items()))


def chunk_starts(context: int) -> list[int]:
    """Where the measured chunks of a prompt of `context` tokens start: the first, one in the middle and the last."""
    last = max(0, context - CHUNK)
    return sorted({0, last // 2, last})


def prompt_seconds(chunks: Mapping[int, float], context: int) -> float:
    """Seconds of a whole prompt: the sum of its chunks, those between measured ones interpolated."""
    starts = sorted(chunks)
    return float(np.interp(range(0, context, CHUNK), starts, [chunks[start] for start in starts]).sum())


def context_share(chunks: Mapping[int, float], context: int) -> float:
    """What part of a prompt's time is due to what its chunks find in the cache; the first one finds nothing."""
    count = len(range(0, context, CHUNK))
    return 1 - count * chunks[0] / prompt_seconds(chunks, context)


def line(points: Mapping[int, float]) -> tuple[float, float]:
    """Constant and slope through positive values, by least squares of the relative errors."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    (constant, slope), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)
    return float(constant), float(slope)


def steps_by_context(document: Document, model: str, kv_type: str, rows: int = 1) -> dict[int, float]:
    """Seconds of a step by context."""
    steps = {context: least(document, Group(model, kv_type, context), "decode").get(rows) for context in CONTEXTS}
    return {context: seconds for context, seconds in steps.items() if seconds is not None}


def models_by_size(document: Document) -> list[str]:
    return sorted(document["models"], key=lambda model: document["models"][model]["parameters"])
