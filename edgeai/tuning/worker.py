"""The child process that tries settings: loads a package, answers one JSON line with another, ends with its input.

    python -m edgeai.tuning.worker PACKAGE
    < {settings}                                    fields of EngineSettings
    > {"ready": true}
    < {"task": "measure", "workload": ..., "order": {...}}      > {"speed": ..., "cpu": ...}
    < {"task": "ask", "expected": {"question": ..., "tokens": [...], ...}}      > {"tokens": [...], ...}

What cannot be done is answered with {"error": ..., "hint": ...}. Whatever else happens to this process (an illegal
instruction, no memory, no end) is seen by its parent, which lives on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from edgeai.device.affinity import pin_thread
from edgeai.engine.config import EngineSettings
from edgeai.errors import EdgeaiError, InvalidInput
from edgeai.model import Model
from edgeai.package.package import Package
from edgeai.tuning.golden import ask
from edgeai.tuning.profile import Golden
from edgeai.tuning.workloads import Order, measure

FIRST_TO_KILL = "1000"  # of /proc/self/oom_score_adj: where memory runs out, this process goes, not a server beside it


def main(package: str) -> None:
    """Serve the parent on standard input and output."""
    answers = _private_output()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_KILL)
    try:
        model = load(Path(package), json.loads(sys.stdin.readline()))
    except EdgeaiError as error:
        _reply(answers, _failure(error))
        return
    _reply(answers, {"ready": True})
    for line in sys.stdin:
        try:
            _reply(answers, do(model, json.loads(line)))
        except EdgeaiError as error:
            _reply(answers, _failure(error))


def load(path: Path, settings: Mapping[str, Any]) -> Model:
    """The model as a server would load it. Raises as `Package.open` and `Model.load` do."""
    chosen = EngineSettings(**{**settings, "cpus": tuple(settings["cpus"])})
    pin_thread(chosen.cpus)
    model = Model.load(Package.open(path), chosen)
    model.engine.runner.complete()
    return model


def do(model: Model, task: Mapping[str, Any]) -> Mapping[str, Any]:
    """One task. Raises `InvalidInput` for one that is not known, and what running the model raises."""
    match task["task"]:
        case "measure":
            return measure(model, task["workload"], Order(**task["order"])).model_dump()
        case "ask":
            return ask(model, Golden(**task["expected"])).model_dump(mode="json")
        case other:
            raise InvalidInput(f"there is no task {other!r}")


def _failure(error: EdgeaiError) -> Mapping[str, str]:
    return {"error": error.message, "hint": error.hint}


def _reply(answers: TextIO, document: Mapping[str, Any]) -> None:
    print(json.dumps(document), file=answers, flush=True)


def _private_output() -> TextIO:
    """Standard output for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main(sys.argv[1])
