"""The same decoder over a KV cache of int8: a graph of its own over the same weights file.

Keys, after rotation, and values are rounded when they are written, to ``scale * code`` with a code of -128 to 127 and
one scale for each channel of a head; onnxruntime's attention reads the codes as they are. A token then takes a quarter
of the memory, and as much less is read for each new token. Reading a prompt is slower: the operator multiplies queries
with codes row by row, where floats go through a blocked product (docs/performance.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ATTENTION = "GroupQueryAttention"
SCALES_AT = 12  # inputs k_scale and v_scale
CACHES = ("past.", "present.")


def write_int8_cache_graph(plain: Path, scales: NDArray[np.float16], path: Path) -> None:
    """Write the graph `plain` with an int8 cache to `path`, in the same folder.

    `scales` are [layers, 2, kv_heads, head_size], of keys and values.
    """
    model = onnx.load(plain, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(CACHES):
            value.type.tensor_type.elem_type = TensorProto.INT8
    layers = [node for node in model.graph.node if node.op_type == ATTENTION]
    for node, parts in zip(layers, scales, strict=True):
        names = [f"{node.output[0]}.{part}_scale" for part in ("key", "value")]
        for name, part in zip(names, parts, strict=True):
            values = np.ascontiguousarray(part[:, None, :], np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        inputs = [*node.input, *[""] * (SCALES_AT + 2 - len(node.input))]
        inputs[SCALES_AT : SCALES_AT + 2] = names
        del node.input[:]
        node.input.extend(inputs)
        kinds = {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in kinds.items())
    path.write_bytes(model.SerializeToString(deterministic=True))
