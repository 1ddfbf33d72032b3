"""Exports through optimum, in a child process: its memory is given back, and what it prints goes to standard error.

torch, transformers and optimum come with the extra `export`, which needs an environment of its own. The child runs
the interpreter that runs this, offline and with every telemetry switch off, and never runs code of a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edgeai
from edgeai import errors
from edgeai.errors import EdgeaiError, SourceError

__all__ = ["require_exporter", "require_safetensors", "run_exporter"]

PACKAGES = ("torch", "transformers", "optimum")
LAST_LINES = 4  # of a child that died, in the error message

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


def require_safetensors(folder: Path) -> None:
    """Refuse a checkpoint that transformers would have to unpickle. Raises `SourceError`."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is not a Hugging Face checkpoint: it has no config.json", "name its folder")
    if not any(folder.glob("*.safetensors")):
        raise SourceError(
            f"{folder} has no .safetensors file; pickled weights are not opened, as they can run any code",
            "save the model again with safe_serialization=True",
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
        with _child(command) as (child, lines):
            code = child.wait()
        if code or not reply.is_file():
            said = " | ".join(lines) or "it said nothing"
            raise EdgeaiError(f"the export ended with code {code}: {said}", "its whole output is above")
        answer: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
    if "error" in answer:
        _raise(**answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


@contextlib.contextmanager
def _child(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], deque[str]]]:
    """A child whose output has been copied to standard error; it does not outlive an interruption."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    child = subprocess.Popen(
        command,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        for line in child.stdout or ():
            sys.stderr.write(line)
            if line.strip():
                last.append(line.strip())
        yield child, last
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def child_environment() -> dict[str, str]:
    """The environment of this process, silenced, with this very edgeai first on the path."""
    path = [str(Path(edgeai.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _raise(kind: str, message: str, hint: str) -> None:
    known = getattr(errors, kind, EdgeaiError)
    raise known(message, hint)
