"""What a machine can do at most: bytes read from memory in a second, and products of bytes."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import edgeai  # noqa: F401  (before onnxruntime: it keeps it silent)

Clock = Callable[[], float]

READ_BYTES = 384 << 20  # far more than any cache
REPETITIONS = 5
ROWS, COLUMNS, INNER = 512, 2048, 1024  # of a product of bytes


def read_bandwidth(threads: int, clock: Clock = time.perf_counter) -> float:
    """GB/s that `threads` threads sum up floats with, in huge pages where there are such; the best of some."""
    area = mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    values = np.frombuffer(area, np.float32)
    values[:] = 1
    parts = np.array_split(values, threads)
    best = min(_timed_in_threads(parts, clock) for _ in range(REPETITIONS))
    return READ_BYTES / best / 1e9


def int8_multiply_rate(threads: int, clock: Clock = time.perf_counter) -> float:
    """Tera-operations (multiplications and additions) in a second of onnxruntime's plain product of bytes."""
    import onnxruntime

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.integers(-128, 128, (INNER, COLUMNS), np.int8), "w")
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [ROWS, INNER])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [ROWS, COLUMNS])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "bytes", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = rng.integers(0, 256, (ROWS, INNER), np.uint8)
    times = []
    for _ in range(4 * REPETITIONS):
        started = clock()
        session.run(None, {"x": values})
        times.append(clock() - started)
    return 2 * ROWS * COLUMNS * INNER / min(times) / 1e12


def _timed_in_threads(parts: list[np.ndarray], clock: Clock) -> float:
    """Seconds until every part has been summed up by a thread of its own."""
    workers = [threading.Thread(target=np.add.reduce, args=(part,)) for part in parts]
    started = clock()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return clock() - started


if __name__ == "__main__":
    for count in (1, 2):
        print(f"{count} threads: {read_bandwidth(count):.1f} GB/s, {int8_multiply_rate(count):.2f} int8 TOPS")
