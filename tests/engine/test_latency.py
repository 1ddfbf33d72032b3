"""While a long prompt is read others go on decoding, and chunks and drafts follow the bound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.engine.speculative import RunCosts
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


class KnownCosts(RunCosts):
    """A position takes 5 s, and every run 100 s more: what this machine is doing meanwhile matters little."""

    def measured(self, positions: int, seconds: float) -> None:
        pass

    def seconds(self, positions: int) -> float:
        return 100 + 5 * positions


def test_drafts_are_shorter_while_a_prompt_is_read(repetitive_graph: Path, tiny_shape: ModelShape) -> None:
    """Three rows in 250 s, of which a tenth is spare: 25 positions at most; with full drafts it were 33."""
    settings = EngineSettings(threads=1, max_rows=4, chunk_tokens=16, latency_seconds=250)
    engine = Engine(repetitive_graph, tiny_shape, settings)
    engine.drafts.costs = KnownCosts()
    verify, runs = engine.runner.verify, list[int]()

    def counted(rows: Sequence[Sequence[int]], *arguments: Any) -> list[Any]:
        runs.append(len(rows) * max(map(len, rows)))
        return verify(rows, *arguments)

    engine.runner.verify = counted  # type: ignore[method-assign]
    for row in range(3):
        engine.add(str(row), range(2 + row, 40 + row), replace(ENDLESS, max_tokens=450))
    while not runs or runs[-1] < 33:
        assert engine.has_work
        engine.step()
    runs.clear()
    engine.add("long", [*range(2, 96)] * 4, ENDLESS)
    while "long" not in {name for name, _ in engine.step()}:
        pass
    assert 0 < max(runs) <= 25
    while runs[-1] <= 25:  # the bound is for prompts only
        assert engine.has_work
        engine.step()


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [0, 10])
def test_others_go_on_and_the_bound_makes_chunks_shorter(smollm_package: Package, drafts: int) -> None:
    """A bound of three decode steps against none. How long anything takes is left to the machine."""
    read = {}
    for bound in (3600.0, None):
        limits = {"max_rows": 4, "max_context": PROMPT + 200, "draft_tokens": drafts}
        settings = default_settings(smollm_package.manifest, **limits)
        with Model.load(smollm_package, settings) as model:
            sizer = model.engine.scheduler.chunks
            sizer._bound = bound or statistics.median(read[3600.0].seconds) / 3
            read[bound] = read_beside(model.engine, 2)
    free, bounded = read[3600.0], read[None]
    assert sum(free.chunks) == sum(bounded.chunks) == PROMPT
    assert max(free.chunks) == settings.chunk_tokens
    assert statistics.median(bounded.chunks) < statistics.median(free.chunks) / 2
    assert statistics.median(bounded.seconds) < statistics.median(free.seconds)
