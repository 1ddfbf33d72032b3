"""The same decoder with room for LoRA adapters (Hu et al. 2021): a second graph over the same weights file.

Every product y of the plain graph that is listed as a site gets a low-rank term, whose factors are inputs:

    y = product(x) + ((x @ a) * mask) @ b

    adapter.N.a     float [in, rank]        the adapters of one run side by side; `rank` is their sum, and may be 0
    adapter.N.b     float [rank, out]       scale included
    adapter.N.mask  float [rows, 1, rank]   1 in the columns of a row's own adapter, else 0

so rows of one run may have different adapters, or none. Products past the selection of positions have masks
[1, n, rank], one line for each position. The plain graph stays as it is, for whoever has no adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edgeai.package.adapter_sites import AdapterSite

POSITIONS = "logit_index"  # what is computed from this input has one line for each wanted position


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the graph that adapters may add to: the names of its input and output, and what it stands for."""

    x: str
    y: str
    site: AdapterSite


def write_adapter_graph(plain: Path, products: Sequence[Product], path: Path) -> None:
    """Write the graph `plain` with a low-rank term behind each of `products` to `path`, in the same folder."""
    model = onnx.load(plain, load_external_data=False)
    by_output = {product.y: (number, product) for number, product in enumerate(products)}
    selected = _computed_from(POSITIONS, model.graph)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        number, product = by_output.get(node.output[0], (0, None))
        if product is not None:
            model.graph.node[-1].output[0] = f"{product.y}.plain"
            model.graph.node.extend(_low_rank_term(f"adapter.{number}", product))
            model.graph.input.extend(_inputs(f"adapter.{number}", product, selected=product.x in selected))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _low_rank_term(name: str, product: Product) -> Iterator[onnx.NodeProto]:
    steps: Mapping[str, tuple[str, list[str]]] = {
        f"{name}.low": ("MatMul", [product.x, f"{name}.a"]),
        f"{name}.own": ("Mul", [f"{name}.low", f"{name}.mask"]),
        f"{name}.term": ("MatMul", [f"{name}.own", f"{name}.b"]),
        product.y: ("Add", [f"{product.y}.plain", f"{name}.term"]),
    }
    for output, (kind, inputs) in steps.items():
        yield helper.make_node(kind, inputs, [output], name=f"node_{output}")


def _inputs(name: str, product: Product, *, selected: bool) -> Iterator[onnx.ValueInfoProto]:
    rank = f"{name}.rank"
    lines: list[int | str] = [1, "n"] if selected else ["rows", 1]
    shapes: dict[str, list[int | str]] = {
        "a": [product.site.inputs, rank],
        "b": [rank, sum(product.site.sizes)],
        "mask": [*lines, rank],
    }
    for part, shape in shapes.items():
        yield helper.make_tensor_value_info(f"{name}.{part}", TensorProto.FLOAT, shape)


def _computed_from(name: str, graph: onnx.GraphProto) -> set[str]:
    """`name` and everything that depends on it."""
    found = {name}
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found
