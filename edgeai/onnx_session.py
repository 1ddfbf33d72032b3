"""The only module that imports onnxruntime: sessions, and bindings of numpy memory to a graph's inputs and outputs.

Importing the `edgeai` package has switched onnxruntime's telemetry off before this module can be reached.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import edgeai
from edgeai.errors import PackageError

__all__ = ["Binding", "Interrupted", "OnnxSession", "runtime_version"]

Array = NDArray[Any]
WHOLE_SCORES = "ORT_GQA_DISABLE_FLASH_ATTENTION"
_loading = threading.Lock()  # a variable of the process tells sessions how to compute scores
_NUMPY = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64"}


def runtime_version() -> str:
    """Version of the onnxruntime in use, with edgeai's own for bug reports."""
    return f"onnxruntime {ort.__version__}, edgeai {edgeai.__version__}"


class Binding:
    """Inputs and outputs of a session fixed to numpy arrays, to be run any number of times.

    The arrays are used in place, so that writing to them before a run is all it takes to pass new values, and an
    output array holds its result after the run. Arrays must be C-contiguous and keep their shape; binding a name again
    replaces its array.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._binding = session.io_binding()
        self._values: dict[str, tuple[Any, Array]] = {}  # keeps the memory alive for as long as it is bound

    def input(self, name: str, array: Array) -> None:
        self._binding.bind_ortvalue_input(name, self._wrap(name, array))

    def output(self, name: str, array: Array) -> None:
        self._binding.bind_ortvalue_output(name, self._wrap(name, array))

    def in_place(self, input_name: str, output_name: str, array: Array) -> None:
        """Bind one array as an input that the graph updates and gives back as an output."""
        value = self._wrap(input_name, array)
        self._binding.bind_ortvalue_input(input_name, value)
        self._binding.bind_ortvalue_output(output_name, value)

    def _wrap(self, name: str, array: Array) -> Any:
        if not array.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays can be bound in place")
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._values[name] = (value, array)
        return value


class Interrupted(Exception):
    """A run was ended by `OnnxSession.interrupt`; what it was to write is undefined."""


class OnnxSession:
    """A graph on onnxruntime's CPU provider.

    `threads` is the size of the pool that computes one run, the calling thread included. `spin_us` is how long, in
    microseconds, a thread looks for work within a run before it sleeps; None leaves that to onnxruntime. `cpus` are the
    logical processors, from 0, that the pool's threads stay on (the caller pins its own thread, `device.affinity`);
    empty: any. `whole_scores` lets attention to a prompt make all its scores at once, heads * tokens * capacity floats,
    instead of tile by tile: faster, where there is memory for it. `varied_shapes` is for graphs whose inputs rarely
    have the same shape twice: nothing is remembered by shape. `exact_int8` keeps products of unsigned
    and signed bytes off instructions that saturate, which takes longer (`device.profile.saturates_int8`).

    Raises `PackageError` when the graph cannot be loaded.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        spin_us: int | None = None,
        cpus: Sequence[int] = (),
        whole_scores: bool = False,
        varied_shapes: bool = False,
        exact_int8: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if spin_us == 0 else "1")
        if spin_us:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_us))
        if cpus and threads > 1:  # onnxruntime counts processors from 1, and the calling thread is not one of its own
            mask = ",".join(str(cpu + 1) for cpu in cpus)
            options.add_session_config_entry("session.intra_op_thread_affinities", ";".join([mask] * (threads - 1)))
        # Spin inside a run, where the next operator is microseconds away, but sleep as soon as the run is over.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.enable_mem_pattern = not varied_shapes
        options.add_session_config_entry("session.x64quantprecision", "1" if exact_int8 else "0")
        try:
            with _loading:
                os.environ[WHOLE_SCORES] = "1" if whole_scores else "0"  # read when the session makes its kernels
                self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise PackageError(f"{graph} cannot be loaded: {error}", "verify the package and build it again") from error
        self._shrinking = False
        self._running: ort.RunOptions | None = None

    def shrink(self) -> None:
        """Give the buffers of past runs back to the system, at the end of the next run."""
        self._shrinking = True

    def interrupt(self) -> None:
        """End the run that is under way, if there is one, with `Interrupted`; from another thread than it runs in."""
        options = self._running
        if options is not None:
            options.terminate = True

    def _guarded(self, run: Callable[[ort.RunOptions], Any]) -> Any:
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "0")  # the default; where it is not told an exception costs 70 µs
        if self._shrinking:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._shrinking, self._running = False, options
        try:
            return run(options)
        except Exception as error:  # onnxruntime's own class for it is not exported
            if options.terminate:
                raise Interrupted("the run was interrupted") from error
            raise
        finally:
            self._running = None

    @property
    def input_names(self) -> list[str]:
        return [node.name for node in self._session.get_inputs()]

    @property
    def input_shapes(self) -> dict[str, list[int | str]]:
        """Declared shapes of all inputs; symbolic dimensions are strings."""
        return {node.name: node.shape for node in self._session.get_inputs()}

    @property
    def input_types(self) -> dict[str, np.dtype[Any]]:
        """Element types of the inputs that have numpy's."""
        return {node.name: np.dtype(_NUMPY[node.type]) for node in self._session.get_inputs() if node.type in _NUMPY}

    @property
    def output_names(self) -> list[str]:
        return [node.name for node in self._session.get_outputs()]

    def input_shape(self, name: str) -> list[int | str]:
        """Declared shape of one input."""
        return self.input_shapes[name]

    def binding(self) -> Binding:
        return Binding(self._session)

    def run_bound(self, binding: Binding) -> None:
        """Run the graph on bound memory. Releases the interpreter lock while it computes."""
        self._guarded(lambda options: self._session.run_with_iobinding(binding._binding, options))

    def run(self, outputs: list[str], inputs: dict[str, Array]) -> list[Array]:
        """Run with fresh arrays: one-off evaluation, and graphs whose outputs change shape with every run."""
        results: list[Array] = self._guarded(lambda options: self._session.run(outputs, inputs, options))
        return [np.asarray(result) for result in results]
