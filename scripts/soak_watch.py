"""Looks at a server again and again while it is used: whether it answers, what it holds, and whether that grows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from patience import PATIENCE
from process_cost import tree
from soak_clients import Target

SECONDS = 1.0  # between two looks
LEAST_SECONDS = 60.0  # of a time in which growth can be told from chance
_GAUGE = re.compile(r"^(edgeai_\w+)(?:\{[^}]*\})? ([-+.e0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server held at a moment of time.perf_counter()."""

    moment: float
    pid: int
    rss_mib: float
    descriptors: int
    threads: int
    running: int = 0
    waiting: int = 0
    kv_mib: float = 0.0
    answered_in: float = 0.0  # seconds for GET /health

    @property
    def own_mib(self) -> float:
        """Memory beside the KV cache, which fills up to its budget by design."""
        return self.rss_mib - self.kv_mib


# What may not grow: by how much of it, at most, over the time that is judged.
BOUNDS: Mapping[str, Callable[[float], float]] = {
    "own_mib": lambda median: 0.05 * median,
    "descriptors": lambda median: max(8.0, 0.1 * median),
    "threads": lambda _: 2.0,
}


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one figure over a time: its median, by how much it grew, and by how much it may. Not judged when too short."""

    name: str
    median: float
    grown: float
    bound: float
    judged: bool

    @property
    def good(self) -> bool:
        return not self.judged or self.grown <= self.bound


def growth(samples: Sequence[Sample], *, least: float = LEAST_SECONDS) -> list[Growth]:
    """The Theil-Sen slope of each figure (the median over all pairs of samples), times the time they span.

    Single peaks do not move it. Empty for fewer than three samples.
    """
    if len(samples) < 3:
        return []
    moments = np.array([sample.moment for sample in samples])
    span = float(moments[-1] - moments[0])
    first, second = np.triu_indices(len(samples), 1)
    found = []
    for name, bound in BOUNDS.items():
        values = np.array([getattr(sample, name) for sample in samples], dtype=float)
        slope = float(np.median((values[second] - values[first]) / (moments[second] - moments[first])))
        median = float(np.median(values))
        found.append(Growth(name, median, slope * span, bound(median), span >= least))
    return found


def look(pid: int, **more: float) -> Sample:
    """A sample of a process and its children. Raises psutil.Error when it is gone."""
    pids = [psutil.Process(each) for each in tree(pid)]
    return Sample(
        time.perf_counter(),
        pid,
        rss_mib=sum(each.memory_info().rss for each in pids) / 2**20,
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=sum(each.num_threads() for each in pids),
        **more,  # type: ignore[arg-type]
    )


class Watch:
    """Samples of the server that `pid` names, once a second; `failures` are looks that were not answered with 200."""

    def __init__(self, target: Target, key: str, pid: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self._target, self._key, self._pid = target, key, pid
        self._over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        if self._task is not None:
            await self._task

    async def now(self, client: httpx.AsyncClient) -> Sample:
        """One sample. Raises httpx.TransportError, psutil.Error and `httpx.HTTPStatusError`."""
        asked = time.perf_counter()
        health = (await client.get(f"{self._target.base_url}/health")).raise_for_status().json()
        answered = time.perf_counter() - asked
        metrics = (await client.get(f"{self._target.base_url}/metrics")).raise_for_status().text
        gauges = {name: float(value) for name, value in _GAUGE.findall(metrics)}
        return look(
            self._pid(),
            running=health["running"],
            waiting=health["waiting"],
            kv_mib=gauges.get("edgeai_kv_cache_written_bytes", 0) / 2**20,
            answered_in=answered,
        )

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self._key}", "Connection": "close"}
        return httpx.AsyncClient(timeout=PATIENCE, headers=headers)

    async def _watch(self) -> None:
        async with self.client() as client:
            while not self._over:
                asked = time.perf_counter()
                try:
                    self.samples.append(await self.now(client))
                except (httpx.HTTPError, psutil.Error, OSError) as error:
                    if not self._target.was_down(asked, time.perf_counter()):
                        self.failures.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(SECONDS)
