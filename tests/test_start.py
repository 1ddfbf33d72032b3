"""What a start must not spend time on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import patience
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package

SCRIPT = """
import importlib.metadata
import edgeai

def search(**_):
    raise SystemExit(3)

importlib.metadata.distributions = search
from edgeai.package.manifest import Manifest
Manifest.model_rebuild()
"""

# Packages and modules that a first answer does not need, with all that is in them.
FOR_LATER = [
    "cryptography",
    "llguidance",
    "multiprocessing.pool",
    "numpy.random",
    "numpy.fft",
    "numpy.ma",
    "numpy.polynomial",
    "onnx",
    "pydantic.v1.main",
    "rich",
    "zeroconf",
    "watchfiles.main",
    "edgeai.architectures",
    "edgeai.build",
    "edgeai.cli.ask",
    "edgeai.cli.build",
    "edgeai.cli.chat",
    "edgeai.cli.models",
    "edgeai.discovery.announce",
    "edgeai.exporter",
    "edgeai.measure",
    "edgeai.server.openapi",
    "edgeai.server.self_signed",
    "edgeai.sources",
    "edgeai.tuning.child",
]

THREADS = """
import os
import edgeai.server.serve
from edgeai.cli.main import execute

def serve(*_, **__):
    import numpy
    print(len(os.listdir("/proc/self/task")))

edgeai.server.serve.serve = serve
execute(["serve"])
"""

DESCRIBED = """
import contextlib, json, sys, pydantic
from edgeai.server.deferred import models_built_when_used
with models_built_when_used() if sys.argv[1] == "deferred" else contextlib.nullcontext():
    import fastapi.openapi.models
    from edgeai.server.app import create_app
    from edgeai.server.protocol import StreamOptions
class Later(pydantic.BaseModel):
    pass

print(*(model.__pydantic_complete__ for model in (fastapi.openapi.models.Contact, StreamOptions, Later)))
print(json.dumps(create_app(None).openapi(), sort_keys=True))
"""


@pytest.mark.parametrize(("own", "code"), [({}, 0), ({"PYDANTIC_DISABLE_PLUGINS": ""}, 3)], ids=["default", "wanted"])
def test_installed_packages_are_not_searched_for_plugins(own: dict[str, str], code: int) -> None:
    """On an SD card there are hundreds of small files to read; whoever has plugins can have them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"} | own
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, timeout=PATIENCE, check=False)
    assert done.returncode == code


def test_a_first_answer_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """The real command up to a first answer that was drawn at random; Python tells what it imported."""
    options = ["--port", "0", "--threads", "1", "--check", "never", "--kv-disk", "0"]
    command = [sys.executable, "-X", "importtime", "-m", "edgeai", "serve", "--model"]
    command += [str(float_package(tmp_path).path), *options]
    said = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "Ctrl-C" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address is not None
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "temperature": 1}
            answer = patience.post(f"{address[0]}/v1/chat/completions", json=body)
            assert answer.json()["usage"]["completion_tokens"] > 0
        finally:
            process.kill()
        said += process.stderr.read()
    imported = set(re.findall(r"^import time: .*\| +(\S+)$", said, re.MULTILINE))
    assert {"onnxruntime", "fastapi", "tokenizers", "edgeai.server.openai.chat"} <= imported
    assert {name for name in imported for late in FOR_LATER if f"{name}.".startswith(f"{late}.")} == set()


def test_numpy_starts_no_threads(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment["EDGEAI_HOME"] = str(tmp_path)
    assert run(THREADS, env=environment) == "1\n"


def test_an_api_is_described_the_same_though_its_models_are_built_late() -> None:
    early, late = run(DESCRIBED, "at once"), run(DESCRIBED, "deferred")
    assert early.splitlines() == ["True True True", *late.splitlines()[1:]]
    assert late.splitlines()[0] == "False False True"


def run(script: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a script prints in an interpreter of its own, for which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
