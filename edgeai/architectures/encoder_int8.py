"""Encoder graphs in int8: linear layers and embedding tables of an exported float graph, rewritten one by one.

An int8 linear layer computes, for a row x of K values and weights W [K, N] with columns w::

    a = max|x| / 127,  b = max|w| / 127,  y = a * b * (round(x / a) @ round(w / b))

so that what a sentence becomes does not depend on what else is in its batch (int8_rows.py).
A precise layer is MatMulNBits with 8 bits, which has a scale per 32 weights and per 32 activations.
Embedding tables become int8 with one scale per row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model, load_external_data_for_tensor

from edgeai.architectures.graph import MICROSOFT
from edgeai.architectures.int8_rows import LARGEST, SMALLEST, ZERO, int8_product, quantized_rows

__all__ = ["FloatGraph"]

OPSET, IR_VERSION = 21, 10  # QuantizeLinear with a scale per row
PRECISE_BLOCK = 32
LARGE_TABLE = 1000  # rows; position and type tables stay float
INLINE_BYTES = 1024

Floats = NDArray[np.float32]


class FloatGraph:
    """The float graph at `path`, its weights in external files beside it; read when they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = onnx.load(str(path), load_external_data=False)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.linears = {node.name: tuple(self._tensors[node.input[1]].dims) for node in self._matmuls(model)}
        self.inputs = [entry.name for entry in model.graph.input]
        self.output = model.graph.output[0].name

    def weight(self, name: str) -> Floats:
        """One initializer's values."""
        tensor = TensorProto()
        tensor.CopyFrom(self._tensors[name])
        if tensor.data_location == TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, str(self.path.parent))
        values: Floats = numpy_helper.to_array(tensor).astype(np.float32)
        return values

    def write_probe(self, path: Path, int8: Collection[str], precise: Collection[str] = (), *, tables: bool) -> None:
        """Write a graph beside this one whose other layers stay float, by reference to the same weights."""
        if path.parent != self.path.parent:
            raise ValueError("a probe refers to the weights beside the float graph")
        onnx.save(self._rewritten(int8, precise, tables=tables), str(path))

    def write(self, path: Path, weights: str, precise: Collection[str]) -> dict[str, int]:
        """Write the whole graph in int8 with its weights in one file; returns how many tensors are stored how."""
        int8 = [name for name in self.linears if name not in precise]
        model = self._rewritten(int8, precise, tables=True)
        load_external_data_for_model(model, str(self.path.parent))
        counts = _count_encodings(model)
        onnx.save(
            model, str(path), save_as_external_data=True, location=weights, size_threshold=INLINE_BYTES,
            all_tensors_to_one_file=True,
        )  # fmt: skip
        return counts

    def _matmuls(self, model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
        for node in model.graph.node:
            if node.op_type == "MatMul" and node.input[1] in self._tensors and node.name:
                yield node

    def _rewritten(self, int8: Collection[str], precise: Collection[str], *, tables: bool) -> onnx.ModelProto:
        model = onnx.load(str(self.path), load_external_data=False)
        rewriter = _Rewriter(self)
        for node in model.graph.node:
            if node.name in int8 and node.name in self.linears:
                rewriter.int8_linear(node)
            elif node.name in precise and node.name in self.linears:
                rewriter.precise_linear(node)
            elif tables and self._is_large_table(node):
                rewriter.int8_table(node)
            else:
                rewriter.keep(node)
        return rewriter.finish(model)

    def _is_large_table(self, node: onnx.NodeProto) -> bool:
        table = self._tensors.get(node.input[0]) if node.op_type == "Gather" else None
        return table is not None and len(table.dims) == 2 and table.dims[0] >= LARGE_TABLE


class _Rewriter:
    """Collects the nodes and initializers of the graph that is written."""

    def __init__(self, source: FloatGraph) -> None:
        self._source = source
        self._nodes: list[onnx.NodeProto] = []
        self._new: dict[str, onnx.TensorProto] = {}
        self._count = 0
        self._quantized: dict[str, tuple[str, str]] = {}  # activations that are there already: codes and scales

    def keep(self, node: onnx.NodeProto) -> None:
        """Take a node as it is."""
        self._nodes.append(node)

    def int8_linear(self, node: onnx.NodeProto) -> None:
        """MatMul by int8 weights and activations, a scale per column and per row."""
        x, name, y = node.input[0], node.input[1], node.output[0]
        weight = self._source.weight(name)
        scales = np.maximum(np.abs(weight).max(axis=0) / LARGEST, SMALLEST).astype(np.float32)
        self._add(f"{name}.codes", np.clip(np.rint(weight / scales), -LARGEST, LARGEST).astype(np.int8))
        self._add(f"{name}.scales", scales)
        rows = self._quantize_rows(x, weight.shape[0])
        int8_product(self, rows, f"{name}.codes", f"{name}.scales", unsigned=True, output=y)

    def precise_linear(self, node: onnx.NodeProto) -> None:
        """MatMul by 8-bit weights in blocks of 32."""
        name = node.input[1]
        weight = self._source.weight(name).T  # [N, K]
        n, k = weight.shape
        blocks = -(-k // PRECISE_BLOCK)
        padded = np.zeros((n, blocks * PRECISE_BLOCK), np.float32)
        padded[:, :k] = weight
        grid = padded.reshape(n, blocks, PRECISE_BLOCK)
        scales = np.maximum(np.abs(grid).max(axis=2) / LARGEST, SMALLEST).astype(np.float32)
        self._add(f"{name}.codes", (np.rint(grid / scales[..., None]) + ZERO).astype(np.uint8))
        self._add(f"{name}.scales", scales)
        self._node(
            "MatMulNBits", [node.input[0], f"{name}.codes", f"{name}.scales"], node.output[0],
            domain=MICROSOFT, K=k, N=n, bits=8, block_size=PRECISE_BLOCK, accuracy_level=4,
        )  # fmt: skip

    def int8_table(self, node: onnx.NodeProto) -> None:
        """Gather of int8 rows and of their scales."""
        name, ids, y = node.input[0], node.input[1], node.output[0]
        table = self._source.weight(name)
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / LARGEST, SMALLEST).astype(np.float32)
        self._add(f"{name}.codes", np.rint(table / scales).astype(np.int8))
        self._add(f"{name}.scales", scales)
        self._node("Gather", [f"{name}.codes", ids], f"{y}.codes")
        self._node("Gather", [f"{name}.scales", ids], f"{y}.scales")
        self._node("Cast", [f"{y}.codes"], f"{y}.values", to=TensorProto.FLOAT)
        self._node("Mul", [f"{y}.values", f"{y}.scales"], y)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph with these nodes, and the initializers that they use."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        for field in (model.graph.node, model.graph.initializer, model.graph.value_info, model.opset_import):
            del field[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend([*kept, *self._new.values()])
        model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)])
        model.ir_version = IR_VERSION
        return model

    def _quantize_rows(self, x: str, width: int) -> tuple[str, str]:
        """Names of the uint8 codes and float scales [..., 1] of an activation; layers that share it share them."""
        if x not in self._quantized:
            self._quantized[x] = quantized_rows(self, x, width, unsigned=True)
        return self._quantized[x]

    def op(self, kind: str, inputs: Sequence[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output, of this name or a new one, and return it."""
        self._count += 1
        output = output or f"edgeai.{kind}_{self._count}"
        self._node(kind, list(inputs), output, domain, **attributes)
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a small tensor; equal ones are stored once."""
        array = np.asarray(values)
        return self._constant(f"{array.dtype.str[1:]}.{array.tobytes().hex()}", array)

    def _constant(self, name: str, value: Any) -> str:
        full = f"edgeai.{name}"
        if full not in self._new:
            self._add(full, np.asarray(value))
        return full

    def _add(self, name: str, values: NDArray[Any]) -> None:
        self._new[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)

    def _node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))


def _count_encodings(model: onnx.ModelProto) -> dict[str, int]:
    """Number of tensors by encoding: INT8 with a scale per row or column, INT8_BLOCKS, F32."""
    names = {TensorProto.INT8: "INT8", TensorProto.UINT8: "INT8_BLOCKS", TensorProto.FLOAT: "F32"}
    counts: dict[str, int] = {}
    for tensor in model.graph.initializer:
        stored = names.get(tensor.data_type)
        if stored and tensor.dims and not tensor.name.endswith(".scales"):
            counts[stored] = counts.get(stored, 0) + 1
    return dict(sorted(counts.items()))
