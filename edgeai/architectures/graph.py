"""Writes an ONNX graph node by node, its weights streamed to one external file.

Nothing here knows about language models. Weights are appended to the file as they are given, so that a build holds one
tensor at a time; two initializers may name the same bytes, also those of another graph's file in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

MICROSOFT = "com.microsoft"
OPSET = 21
IR_VERSION = 10
ALIGNMENT = 64  # bytes; a cache line, and enough for every vector load

Array = NDArray[Any]


class StoredWeights:
    """The weights that a graph which is written already keeps in its external files, found by name and content."""

    def __init__(self, graph: Path) -> None:
        self._folder = graph.parent
        initializers = onnx.load(graph, load_external_data=False).graph.initializer
        self._tensors = {tensor.name: tensor for tensor in initializers if tensor.external_data}

    def find(self, name: str, values: Array) -> onnx.TensorProto | None:
        """The tensor of this name, where it has the same type, shape and bytes as `values`."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type != helper.np_dtype_to_tensor_dtype(values.dtype):
            return None
        if tuple(tensor.dims) != values.shape:
            return None
        place = {entry.key: entry.value for entry in tensor.external_data}
        at, length = int(place["offset"]), int(place["length"])
        stored = np.memmap(self._folder / place["location"], mode="r", offset=at, shape=length) if length else b""
        return tensor if bytes(stored) == values.tobytes() else None


class GraphBuilder:
    """Collects nodes, inputs, outputs and initializers, and streams the latter to `weights`.

    Use as a context manager; `save` writes the graph beside the weights file. Names are made by counting, so the same
    calls give the same bytes. Weights that are `stored` by another graph are not stored again.
    """

    def __init__(self, weights: Path, stored: StoredWeights | None = None) -> None:
        self._weights = weights
        self._stored = stored
        self._file: IO[bytes] = weights.open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._reserved: set[str] = set()
        self._count = 0

    def __enter__(self) -> GraphBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def op(self, kind: str, inputs: Sequence[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        return self.ops(kind, inputs, [output or self._fresh(kind)], domain=domain, **attributes)[0]

    def ops(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> Sequence[str]:
        """Add a node with the given outputs; an empty name leaves an optional output out."""
        name = self._fresh(f"node_{kind}")
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def node(self, node: onnx.NodeProto) -> None:
        """Add a node of another graph as it is; its names have to be reserved."""
        self._nodes.append(node)

    def reserve(self, names: Iterable[str]) -> None:
        """Names that another graph brings along and that are never made up here."""
        self._reserved.update(names)

    def fresh(self, stem: str) -> str:
        """A name that nothing else has."""
        return self._fresh(stem)

    def constant(self, values: Array) -> str:
        """A small tensor, kept inside the graph file; equal constants are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            name = self._fresh("constant")
            self._initializers.append(onnx.numpy_helper.from_array(values, name))
            self._constants[key] = name
        return self._constants[key]

    def inline(self, name: str, values: Array) -> str:
        """A small tensor kept inside the graph file under a name of its own."""
        self._initializers.append(onnx.numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, values: Array) -> str:
        """Append a tensor to the weights file, if it is not stored already."""
        values = np.ascontiguousarray(values)
        known = None if self._stored is None else self._stored.find(name, values)
        if known is not None:
            self._initializers.append(known)
            return name
        start = self._file.tell()
        padding = -start % ALIGNMENT
        self._file.write(b"\0" * padding)
        self._file.write(values.data.cast("B") if values.size else b"")
        self._reference(name, values.dtype, values.shape, start + padding, values.nbytes)
        return name

    def alias(self, name: str, of: str, dtype: np.dtype[Any], shape: Sequence[int]) -> str:
        """A second initializer that reads the bytes of `of` with another shape."""
        original = next(tensor for tensor in self._initializers if tensor.name == of)
        location = {entry.key: entry.value for entry in original.external_data}
        self._reference(name, dtype, shape, int(location["offset"]), int(location["length"]))
        return name

    def prune(self) -> None:
        """Leave out what no output depends on; weights that were written stay in the file."""
        wanted = {output.name for output in self._outputs}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self._nodes):
            if not wanted.isdisjoint(node.output):
                kept.append(node)
                wanted.update(node.input)
        self._nodes = kept[::-1]
        self._inputs = [value for value in self._inputs if value.name in wanted]
        self._initializers = [tensor for tensor in self._initializers if tensor.name in wanted]

    def save(self, path: Path, *, name: str, opset: int = OPSET) -> None:
        """Write the graph to `path`; the weights file has to stay in the same folder."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgeai")
        path.write_bytes(model.SerializeToString(deterministic=True))

    def _reference(self, name: str, dtype: np.dtype[Any], shape: Sequence[int], offset: int, length: int) -> None:
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(dtype), dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._weights.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        self._initializers.append(tensor)

    def _fresh(self, stem: str) -> str:
        self._count += 1
        name = f"{stem}_{self._count}"
        return name if name not in self._reserved else self._fresh(stem)
