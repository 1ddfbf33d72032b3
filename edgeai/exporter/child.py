"""The child's side: ``python -m edgeai.exporter.child TASK REQUEST ANSWER``.

`REQUEST` is a JSON object, the keyword arguments of the task; `ANSWER` becomes ``{"result": {...}}`` or
``{"error": {"kind", "message", "hint"}}``. An answer that is not there means that the child died.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeai.errors import EdgeaiError

# Modules of this room by task; each has a function `export` that takes the request and returns the result.
TASKS: Mapping[str, str] = {
    "encoder": "edgeai.exporter.encoder",
    "text-generation": "edgeai.exporter.text_generation",
}


def answer(task: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request; what edgeai's own errors say travels in the answer, all else ends the child."""
    export: Callable[..., dict[str, Any]] = importlib.import_module(TASKS[task]).export
    try:
        return {"result": export(**request)}
    except EdgeaiError as error:
        return {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}


def main(task: str, request: str, result: str) -> None:
    """Read the request file, write the answer file."""
    reply = answer(task, json.loads(Path(request).read_text(encoding="utf-8")))
    Path(result).write_text(json.dumps(reply), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
