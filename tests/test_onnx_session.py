"""Threads of a session: where they run, and whether they spin while there is nothing for them to do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeai.device.affinity import allowed_cpus
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.model_runner import ModelRunner
from edgeai.onnx_session import OnnxSession
from tests.fixtures.patience import eventually

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
    # Each moves when it first runs.
    assert eventually(lambda: all(os.sched_getaffinity(worker) == {last} for worker in workers))
    assert allowed_cpus() == set(ALLOWED)  # the caller's own thread is not touched
    del runner


def test_without_a_choice_workers_run_anywhere(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    runner, workers = workers_of(tiny_graph, tiny_shape, EngineSettings(threads=2))
    assert all(os.sched_getaffinity(worker) == set(ALLOWED) for worker in workers)
    del runner


def mostly_serial(path: Path, cumsums: int = 2500) -> Path:
    """A graph with one product, which wakes all threads, and then a long stretch that only the first one computes."""
    weights = numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
    axis = numpy_helper.from_array(np.array(0, np.int64), "axis")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"])]
    nodes += [helper.make_node("CumSum", [f"y{i}", "axis"], [f"y{i + 1}"]) for i in range(cumsums)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [256, 256])
    y = helper.make_tensor_value_info(f"y{cumsums}", TensorProto.FLOAT, [256, 256])
    graph = helper.make_graph(nodes, "serial", [x], [y], [weights, axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def spun(graph: Path, spin_us: int | None, runs: int = 4) -> float:
    """Processor time of the second thread, for which there is nothing to do, by that of the first.

    Time that was had, not time that went by: other programs take from both.
    """
    before = thread_ids()
    session = OnnxSession(graph, threads=2, spin_us=spin_us)
    workers = thread_ids() - before
    inputs = {"x": np.ones((256, 256), np.float32)}
    session.run(session.output_names, inputs)
    idle, own = processor_seconds(workers), time.thread_time()
    for _ in range(runs):
        session.run(session.output_names, inputs)
    return (processor_seconds(workers) - idle) / (time.thread_time() - own)


def processor_seconds(threads: set[int]) -> float:
    """To the nanosecond; `psutil` has hundredths of a second."""
    statistics = [Path(f"/proc/self/task/{thread}/schedstat").read_text() for thread in threads]
    return sum(int(text.split()[0]) for text in statistics) / 1e9


def test_spinning_is_as_long_as_told(tmp_path: Path) -> None:
    graph = mostly_serial(tmp_path / "serial.onnx")
    for _ in range(10):  # a thread that only gets a processor when the run is over has had no time to spin
        long, short, none = (spun(graph, spin_us) for spin_us in (None, 1000, 0))
        if none < short / 2 < long / 4:
            return
    pytest.fail(f"a second thread took {long:.2f} of the first one's time, {short:.2f} when told 1 ms, {none:.2f} none")
