"""Threads of a session: where they run, and whether they spin while there is nothing for them to do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from edgeai.device.affinity import allowed_cpus
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner

ALLOWED = sorted(allowed_cpus())


def thread_ids() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def workers_of(graph: Path, shape: ModelShape, settings: EngineSettings) -> tuple[ModelRunner, set[int]]:
    before = thread_ids()
    runner = ModelRunner(graph, shape, settings, 128)
    return runner, thread_ids() - before


@pytest.mark.parametrize("threads", [2, 3])
def test_workers_stay_on_the_processors_they_are_given(tiny_graph: Path, tiny_shape: ModelShape, threads: int) -> None:
    last = ALLOWED[-1]
    runner, workers = workers_of(tiny_graph, tiny_shape, EngineSettings(threads=threads, cpus=(last,)))
    assert len(workers) == threads - 1
    assert all(os.sched_getaffinity(worker) == {last} for worker in workers)
    assert allowed_cpus() == set(ALLOWED)  # the caller's own thread is not touched
    del runner


def test_without_a_choice_workers_run_anywhere(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    runner, workers = workers_of(tiny_graph, tiny_shape, EngineSettings(threads=2))
    assert all(os.sched_getaffinity(worker) == set(ALLOWED) for worker in workers)
    del runner


def idle_share(graph: Path, shape: ModelShape, spin_us: int | None) -> float:
    """How much of its time the second thread computes while the first runs a model that is too small to be shared."""
    settings = EngineSettings(threads=2, spin_us=spin_us, whole_scores=False)  # tiles are always shared out
    runner, workers = workers_of(graph, shape, settings)
    runner.prefill(0, [5], 0)
    started = time.perf_counter()
    before = worker_seconds(workers)
    while time.perf_counter() < started + 0.7:
        runner.decode([5], [1])
    return (worker_seconds(workers) - before) / (time.perf_counter() - started)


def worker_seconds(workers: set[int]) -> float:
    times = [thread for thread in psutil.Process().threads() if thread.id in workers]
    return sum(thread.user_time + thread.system_time for thread in times)


def test_spinning_is_as_long_as_told(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    for _ in range(5):  # on a busy machine neither gets the time that it would take
        spinning, sleeping = (idle_share(tiny_graph, tiny_shape, spin_us) for spin_us in (None, 0))
        if sleeping < spinning / 2:
            return
    pytest.fail(f"a thread that may not spin took {sleeping:.0%} of the time, one that may {spinning:.0%}")
