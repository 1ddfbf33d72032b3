"""The frame of the command line: help that is quick, exit codes, errors for people and as JSON."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgeai
from edgeai.cli import main, models
from tests.cli.conftest import Cli

HEAVY = {"numpy", "onnxruntime", "fastapi", "uvicorn", "pydantic", "tokenizers", "onnx", "jinja2", "psutil"}
COMMANDS = ("build", "fetch", "card", "verify", "run", "chat", "serve", "bench", "tune", "eval", "doctor")
HELP = """
import sys
from edgeai.cli.main import execute
code = execute(["--help"])
print(code, *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    for command in (*COMMANDS, "recipes", "models"):
        assert f" {command} " in result.stdout
    code, *modules = result.stderr.split()
    assert code == "0"
    assert "typer" in modules
    assert not HEAVY & set(modules)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0
    assert f"edgeai {command}" in result.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"edgeai {edgeai.__version__}\n"


def test_an_error_goes_to_standard_error_with_its_hint(cli: Cli) -> None:
    result = cli("run", "nothing", "Hello")
    assert (result.code, result.out) == (1, "")
    assert "error: no model is called 'nothing'" in result.err
    assert "edgeai build" in result.err


def test_an_error_is_one_json_document_with_json(cli: Cli) -> None:
    result = cli("run", "nothing", "Hello", "--json")
    assert (result.code, result.err) == (1, "")
    assert result.document["error"]["type"] == "NotFound"
    assert "edgeai build" in result.document["error"]["hint"]


@pytest.mark.parametrize("arguments", [["rum"], ["run"], ["run", "x", "y", "--temperature", "hot"], ["--what"], []])
def test_wrong_usage_is_code_2(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert "Usage" in result.out + result.err


def test_wrong_usage_is_json_too(cli: Cli) -> None:
    result = cli("run", "--json")
    assert result.code == 2
    assert result.document["error"]["type"] == "UsageError"


def test_an_error_of_the_system_is_told_without_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    monkeypatch.setattr(models, "_store", refuse)
    result = cli("models", "list", "--json")
    assert result.code == 1
    assert result.document["error"] == {
        "type": "PermissionError",
        "message": "[Errno 13] Permission denied: '/somewhere'",
        "hint": "",
    }


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """Standard output closed at the other end, as `edgeai ... | head -1` does."""
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"EDGEAI_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edgeai", "models", "list", "--json"]
    with os.fdopen(write, "wb") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_the_console_script_is_the_module(tmp_path: Path) -> None:
    environment = os.environ | {"EDGEAI_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edgeai", "models", "list", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(result.stdout) == {"home": str(tmp_path), "models": [], "damaged": {}}
    assert callable(main.main)
