"""Exports through optimum, in a child process: its memory is given back, and what it prints goes to standard error.

torch, transformers and optimum come with the extra `export`, which needs an environment of its own. The child runs
the interpreter that runs this, offline and with every telemetry switch off, and never runs code of a checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edgeai
from edgeai import errors
from edgeai.errors import EdgeaiError

__all__ = ["require_exporter", "run_exporter"]

PACKAGES = ("torch", "transformers", "optimum")
LAST_WORDS = 300  # characters of the last line of a child that died, in the error message

ENVIRONMENT = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def require_exporter() -> None:
    """Raises `EdgeaiError` where this environment cannot export."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise EdgeaiError(
            f"exporting needs {', '.join(PACKAGES)}; this environment has no {' and no '.join(missing)}",
            "pip install 'edgeai[export]' in an environment of its own, and run edgeai build from there",
        )


def run_exporter(task: str, request: Mapping[str, Any], *, python: str = sys.executable) -> dict[str, Any]:
    """Carry out `request` (plain JSON values) by the module of `edgeai.exporter` for `task`; returns its result.

    Raises what the child raised of edgeai's errors, and `EdgeaiError` with the end of its output when it died.
    """
    with tempfile.TemporaryDirectory(prefix="edgeai-export-") as folder:
        question, reply = Path(folder, "request.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(dict(request)), encoding="utf-8")
        # -P: a file called torch.py where the user happens to be must not be imported.
        command = [python, "-P", "-m", "edgeai.exporter.child", task, str(question), str(reply)]
        code, last = _run(command)
        if code or not reply.is_file():
            said = last[:LAST_WORDS] or "it said nothing"
            raise EdgeaiError(f"the export ended with code {code}: {said}", "its whole output is above")
        answer: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
    if "error" in answer:
        _raise(**answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _run(command: list[str]) -> tuple[int, str]:
    """Run a child, its output copied to standard error; its code and last line. It does not outlive an interruption."""
    last = ""
    with subprocess.Popen(
        command,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        try:
            for line in child.stdout or ():
                sys.stderr.write(line)
                last = line.strip() or last
            return child.wait(), last
        finally:
            child.kill()


def child_environment() -> dict[str, str]:
    """The environment of this process, silenced, with this very edgeai first on the path."""
    path = [str(Path(edgeai.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _raise(kind: str, message: str, hint: str) -> None:
    known = getattr(errors, kind, EdgeaiError)
    raise known(message, hint)
