"""The real model: while a long prompt is read others go on decoding, and chunks follow the bound."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.model import Model, default_settings
from edgeai.package.package import Package

PROMPT = 2000
ENDLESS = SamplingParams(max_tokens=4096, temperature=0, ignore_eos=True)


@dataclass
class Reading:
    """What happened while the long prompt was read."""

    seconds: list[float] = field(default_factory=list)  # of each step
    chunks: list[int] = field(default_factory=list)


def read_beside(engine: Engine, rows: int) -> Reading:
    """Read a long prompt while `rows` answers are written; each of them has to have a token in every step."""
    rng = np.random.default_rng(0)
    for row in range(rows):
        engine.add(str(row), rng.integers(100, 40_000, 50).tolist(), ENDLESS)
    while len({name for name, _ in engine.step()}) < rows:
        pass
    engine.add("long", rng.integers(100, 40_000, PROMPT).tolist(), ENDLESS)
    reading, names, read = Reading(), set[str](), 0
    while "long" not in names:
        started = time.perf_counter()
        names = {name for name, _ in engine.step()}
        reading.seconds.append(time.perf_counter() - started)
        assert names >= {str(row) for row in range(rows)}
        now = next((each.computed for each in engine.scheduler.reading), PROMPT)
        reading.chunks.append(now - read)
        read = now
    return reading


@pytest.mark.slow
def test_others_go_on_and_the_bound_makes_chunks_shorter(smollm_package: Package) -> None:
    """A bound of three decode steps against none. How long anything takes is left to the machine."""
    read = {}
    for bound in (3600.0, None):
        settings = default_settings(smollm_package.manifest, max_rows=4, max_context=PROMPT + 200, draft_tokens=0)
        with Model.load(smollm_package, settings) as model:
            sizer = model.engine.scheduler.chunks
            sizer._bound = bound or statistics.median(read[3600.0].seconds) / 3
            read[bound] = read_beside(model.engine, 2)
    free, bounded = read[3600.0], read[None]
    assert sum(free.chunks) == sum(bounded.chunks) == PROMPT
    assert max(free.chunks) == settings.chunk_tokens
    assert statistics.median(bounded.chunks) < statistics.median(free.chunks) / 2
    assert statistics.median(bounded.seconds) < statistics.median(free.seconds)
