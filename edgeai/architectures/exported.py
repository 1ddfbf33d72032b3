"""Graphs that optimum exported: their interface checked, their matrices put on a grid, their weights in one file.

Matrices are found by their use: as the second factor of a MatMul or Gemm, and as the table that token ids are looked up
in. Those that are stored as blocks become MatMulNBits and GatherBlockQuantized, as in edgeai's own graphs; all other
nodes stay as they were exported. The product that makes the logits gets a Slice in front (input `logits_from`), so that
reading a prompt does not compute logits which nobody wants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgeai.architectures.embedding import Embedding, write_embedding
from edgeai.architectures.graph import GraphBuilder
from edgeai.architectures.linear import LinearBuilder
from edgeai.architectures.linear_int8 import Int8Table
from edgeai.errors import UnsupportedModel
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor

# Hugging Face's usual names of the two matrices that are worth more bits than others.
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ELEMENTWISE = {"Add", "Cast", "Div", "Identity", "Mul", "Sub", "Tanh"}  # may follow the head's product
SMALL = 1024  # bytes; tensors up to here stay inside the graph file
PLAIN_INPUTS = {"input_ids", "attention_mask", "position_ids"}
ANOTHER = "this kind of model cannot be run; choose another"

Store = Callable[[str, FloatTensor], Tensor]  # a matrix [out, in] by name, in the form it is to be stored in


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Of every layer's keys and values: [rows, kv_heads, past, head_size]."""

    num_layers: int
    num_kv_heads: int
    head_size: int


@dataclass(frozen=True, slots=True)
class _Product:
    """A matrix product of the graph: ``x @ W`` with W [in, out], or stored transposed as [out, in]."""

    node: onnx.NodeProto
    weight: str
    transposed: bool
    bias: str = ""


class ExportedGraph:
    """An exported graph on disk, its tensors read one at a time."""

    def __init__(self, path: Path) -> None:
        self.proto = onnx.load(path, load_external_data=False)
        self._folder = path.parent
        self.tensors = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.nodes = list(self.proto.graph.node)
        self.made_by = {output: node for node in self.nodes for output in node.output if output}
        self.uses: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in _read_by(node):
                self.uses.setdefault(name, []).append(node)

    @property
    def opset(self) -> int:
        return int(next(entry.version for entry in self.proto.opset_import if entry.domain == ""))

    def values(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.tensors[name], base_dir=str(self._folder))

    def matrix(self, name: str) -> bool:
        tensor = self.tensors.get(name)
        return tensor is not None and len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT

    def products(self) -> Iterator[_Product]:
        """All products of an activation with a matrix."""
        for node in self.nodes:
            if node.op_type == "MatMul":
                transposed = self.made_by.get(node.input[1])
                if self.matrix(node.input[1]):
                    yield _Product(node, node.input[1], transposed=False)
                elif transposed and transposed.op_type == "Transpose" and self.matrix(transposed.input[0]):
                    yield _Product(node, transposed.input[0], transposed=True)
            elif node.op_type == "Gemm" and self.matrix(node.input[1]):
                settings = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
                if not settings.get("transA") and {settings.get(key, 1.0) for key in ("alpha", "beta")} == {1.0}:
                    yield _Product(node, node.input[1], bool(settings.get("transB")), "".join(node.input[2:]))

    def table(self) -> str | None:
        """The matrix that the token ids look up."""
        names = {"input_ids"}
        for node in self.nodes:  # exports reshape or cast the ids first
            if node.op_type in {"Cast", "Identity", "Reshape"} and node.input[0] in names:
                names.add(node.output[0])
            elif node.op_type == "Gather" and node.input[1] in names and self.matrix(node.input[0]):
                return str(node.input[0])
        return None

    def head(self) -> onnx.NodeProto | None:
        """The MatMul that makes the logits, whatever scales or caps them afterwards."""
        node = self.made_by.get("logits")
        while node is not None and node.op_type in ELEMENTWISE:
            before = (self.made_by.get(name) for name in node.input)
            node = next((maker for maker in before if maker is not None and maker.op_type != "Constant"), None)
        return node if node is not None and node.op_type == "MatMul" else None


def read_cache(graph: ExportedGraph) -> CacheShape:
    """The interface that the engine's runner of exported graphs can serve. Raises `UnsupportedModel` for any other."""
    inputs = {value.name: value.type.tensor_type for value in graph.proto.graph.input}
    outputs = {value.name for value in graph.proto.graph.output}
    caches = {name: kind for name, kind in inputs.items() if re.fullmatch(r"past_key_values\.\d+\.(key|value)", name)}
    strange = sorted(inputs.keys() - caches.keys() - PLAIN_INPUTS)
    if strange:
        raise UnsupportedModel(f"the export has inputs that are no attention cache: {', '.join(strange[:4])}", ANOTHER)
    if not caches:
        raise UnsupportedModel("the export has no KV cache", ANOTHER)
    shapes = {tuple(_fixed_size(entry) for entry in kind.shape.dim) for kind in caches.values()}
    layers = len(caches) // 2
    complete = {f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")}
    _, heads, _, size = shapes.copy().pop() if {len(shape) for shape in shapes} == {4} else (0, 0, 0, 0)
    kinds = {kind.elem_type for kind in caches.values()}
    if len(shapes) != 1 or not heads or not size or caches.keys() != complete or kinds != {TensorProto.FLOAT}:
        raise UnsupportedModel(
            "the export's KV cache is not one float array [rows, heads, past, size] per layer's keys and values, alike"
            f" in all layers: {sorted(map(str, shapes))}",
            ANOTHER,
        )
    missing = {"logits", *(name.replace("past_key_values", "present") for name in complete)} - outputs
    if missing:
        raise UnsupportedModel(f"the export does not give {', '.join(sorted(missing))}", ANOTHER)
    return CacheShape(layers, heads, size)


def convert(graph: ExportedGraph, store: Store, graph_path: Path, weights_path: Path) -> None:
    """Write the graph with its matrices as `store` gives them: float tensors untouched, blocks on their grid."""
    with GraphBuilder(weights_path) as builder:
        builder.reserve(graph.tensors.keys() | graph.made_by.keys() | {node.name for node in graph.nodes})
        _Conversion(graph, builder, store).run()
        builder.save(graph_path, name="exported", opset=graph.opset)


class _Conversion:
    def __init__(self, graph: ExportedGraph, builder: GraphBuilder, store: Store) -> None:
        self._graph = graph
        self._builder = builder
        self._store = store
        self._linear = LinearBuilder(builder)
        self._products = {product.node.output[0]: product for product in graph.products()}
        self._table = graph.table()
        head = graph.head()
        self._head = head if head is not None and head.output[0] in self._products else None
        self._embedding: Embedding | Int8Table | None = None
        self._blocks: set[str] = set()  # matrices that are stored on a grid now
        self._written: set[str] = set()

    def run(self) -> None:
        proto = self._graph.proto.graph
        for value in proto.input:
            self._builder.input(value.name, value.type.tensor_type.elem_type, _dimensions(value))
        if self._head is not None:
            self._builder.input("logits_from", TensorProto.INT64, [1])
        for node in self._graph.nodes:
            self._convert(node)
        for name in self._graph.tensors:
            self._keep(name)
        for value in proto.output:
            self._builder.output(value.name, value.type.tensor_type.elem_type, _dimensions(value))

    def _convert(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Gather" and node.input[0] == self._table:
            self._convert_lookup(node)
        elif node.output and node.output[0] in self._products:
            self._convert_product(node, self._products[node.output[0]])
        elif not (node.op_type == "Transpose" and node.input[0] in self._blocks):
            self._builder.node(node)

    def _convert_lookup(self, node: onnx.NodeProto) -> None:
        tensor = self._stored(TABLE, node.input[0], transposed=True)
        if not isinstance(tensor, BlockTensor):
            self._builder.node(node)
            return
        if self._embedding is None:
            self._embedding = write_embedding(self._linear, tensor)
        self._builder.op("Identity", [self._embedding.lookup(node.input[1])], output=node.output[0])

    def _convert_product(self, node: onnx.NodeProto, product: _Product) -> None:
        x = self._sliced(node.input[0]) if node is self._head else node.input[0]
        y = self._quantized(x, product, HEAD if node is self._head else product.weight)
        if y is None:
            kept = onnx.NodeProto()
            kept.CopyFrom(node)
            kept.input[0] = x
            self._builder.node(kept)
            return
        if product.bias:
            y = self._builder.op("Add", [y, product.bias])
        self._builder.op("Identity", [y], output=node.output[0])

    def _quantized(self, x: str, product: _Product, name: str) -> str | None:
        """The product over blocks; None where the matrix is stored as floats."""
        if product.weight == self._table:  # tied: whatever the look-up reads
            return self._embedding.logits(x) if self._embedding else None
        tensor = self._stored(name, product.weight, transposed=product.transposed)
        return self._linear.matmul(x, product.weight, tensor) if isinstance(tensor, BlockTensor) else None

    def _stored(self, name: str, weight: str, *, transposed: bool) -> Tensor | None:
        """A matrix [out, in] in its stored form; None where something else than products reads it as it is."""
        if not self._replaceable(weight):
            return None
        values = self._graph.values(weight)
        tensor = self._store(name, FloatTensor(values if transposed else np.ascontiguousarray(values.T)))
        if isinstance(tensor, BlockTensor):
            self._blocks.add(weight)
        return tensor

    def _replaceable(self, weight: str) -> bool:
        """Whether every reader is a product or a look-up. A matrix with several products stays as it is."""
        readers = [self._reader(node) for node in self._graph.uses[weight]]
        products = readers.count("product")
        return "other" not in readers and (products == 1 or (weight == self._table and products <= 1))

    def _reader(self, node: onnx.NodeProto) -> str:
        if node.op_type == "Gather" and node.input[0] == self._table:
            return "lookup"
        if node.op_type == "Transpose":
            readers = self._graph.uses.get(node.output[0], [])
            return "product" if len(readers) == 1 and readers[0].output[0] in self._products else "other"
        return "product" if node.output and node.output[0] in self._products else "other"

    def _sliced(self, x: str) -> str:
        builder = self._builder
        end, axis = builder.constant(np.array([np.iinfo(np.int64).max])), builder.constant(np.array([1]))
        return builder.op("Slice", [x, "logits_from", end, axis])

    def _keep(self, name: str) -> None:
        if name in self._blocks or name not in self._graph.uses:
            return
        values = self._graph.values(name)
        small = values.nbytes <= SMALL
        (self._builder.inline if small else self._builder.weight)(name, values)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)


def _fixed_size(dimension: Any) -> int:
    """A dimension's size; 0 for one that varies."""
    return int(dimension.dim_value)


def _dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    return [entry.dim_param or int(entry.dim_value) for entry in value.type.tensor_type.shape.dim]
