"""The scripts' first steps, in a copy of the checkout where nothing is set up and the machine lacks something."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.patience import PATIENCE

REPOSITORY = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "cksum", "dirname", "env", "rm", "sed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "scripts", copy / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"this machine has no {name}"))
    return copy


def run(
    checkout: Path, script: str, *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout)} | variables
    command = [checkout / "scripts" / script, *arguments]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": False, "cwd": cwd}
    return subprocess.run(command, env=environment, **options)


def put(checkout: Path, name: str, script: str) -> None:
    """A program of this name in the PATH of the scripts."""
    path = checkout.parent / "bin" / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["run", "test", "check"])
def test_a_machine_without_python_is_told_what_to_install(checkout: Path, script: str) -> None:
    result = run(checkout, script)
    assert (result.returncode, result.stdout) == (1, "")
    assert "error: edgeai needs Python 3.11 or newer" in result.stderr
    assert "sudo apt install python3" in result.stderr


def test_an_old_python_is_passed_over(checkout: Path) -> None:
    put(checkout, "python3", "exit 1")  # the answer of an old one to "are you new enough?"
    assert "needs Python 3.11 or newer" in run(checkout, "run").stderr


def test_a_python_without_venv_is_told_what_to_install_and_nothing_is_left(checkout: Path) -> None:
    put(checkout, "python3", '[ "$1" = -c ] || [ "$1" = --version ]')
    result = run(checkout, "run", "Hello")
    assert (result.returncode, result.stdout) == (1, "")
    assert "sudo apt install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    "script",
    [
        "run",
        "test",
        "bench",
        "bench_adapters",
        "finetune_adapter",
        "bench_embeddings",
        "bench_load",
        "bench_servers",
        "soak",
        "build_image",
        "build_llama_server",
    ],
)
def test_help_needs_nothing(checkout: Path, script: str) -> None:
    result = run(checkout, script, "--help")
    assert result.returncode == 0
    assert f"./scripts/{script}" in result.stdout
    assert "set -euo" not in result.stdout


def test_every_script_can_be_executed() -> None:
    for path in [*(REPOSITORY / "scripts").iterdir(), REPOSITORY / ".ci" / "run"]:
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            assert os.access(path, os.X_OK), path


PROGRAM = """
case "$*" in -c*) ;; *"models path"*) echo /the/package ;; *) echo "$PWD|$PYTHONPATH|$*" ;; esac
"""


def test_files_that_options_name_are_the_callers(checkout: Path, tmp_path: Path) -> None:
    """Whatever folder a script is called in: it runs there, with this checkout's modules."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/usr/bin/env bash\n{PROGRAM}")
    python.chmod(0o755)
    project = (checkout / "pyproject.toml").read_text()
    made = subprocess.run(["cksum"], input=project, capture_output=True, text=True, check=True).stdout.strip()
    (checkout / ".venv" / ".made-build").write_text(f"{checkout} {made}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for script in ("bench_latency", "bench_restart", "bench_speculation", "check_memory_limit"):
        result = run(checkout, script, "--json", "rows.json", cwd=elsewhere)
        expected = f"{elsewhere}|{checkout}|{checkout}/scripts/{script}.py /the/package --json rows.json\n"
        assert (result.stderr, result.stdout) == ("", expected)


def test_a_peer_that_is_there_already_is_not_compiled(checkout: Path) -> None:
    put(checkout, "grep", 'printf "flags"')
    (checkout / ".cache" / "llama-server").mkdir(parents=True)
    peer = checkout / ".cache" / "llama-server" / "llama-server"
    peer.write_text("#!/bin/sh\n")
    peer.chmod(0o755)
    assert "no C++ compiler" in run(checkout, "build_llama_server").stderr  # made by nobody knows what
    made = subprocess.run(["cksum"], input="flags", capture_output=True, text=True, check=True).stdout.strip()
    (peer.parent / ".made").write_text(f"0.3.36 {made}")
    result = run(checkout, "build_llama_server")
    assert (result.returncode, result.stdout) == (0, f"{peer}\n")


def test_a_peer_that_is_named_must_be_there(checkout: Path) -> None:
    result = run(checkout, "build_llama_server", EDGEAI_LLAMA_SERVER=str(checkout / "missing"))
    assert (result.returncode, result.stdout) == (1, "")
    assert "EDGEAI_LLAMA_SERVER names no program" in result.stderr


def distributions(extras: Iterable[str]) -> set[str]:
    """Names of what pip installs itself for edgeai with these extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    waiting = [*project["dependencies"], *(f"edgeai[{extra}]" for extra in extras)]
    while waiting:
        requirement = waiting.pop()
        if nested := re.fullmatch(r"edgeai\[(.+)\]", requirement):
            waiting += [one for extra in nested[1].split(",") for one in project["optional-dependencies"][extra]]
        else:
            found.add(re.split(r"[^\w.-]", requirement)[0].lower())
    return found


def imported(program: Path) -> set[str]:
    """Top-level modules of others that a program of scripts/ imports at once, itself and through its neighbours."""
    found: set[str] = set()
    for node in ast.parse(program.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in (name.partition(".")[0] for name in names):
            neighbour = program.with_name(f"{name}.py")
            found |= imported(neighbour) if neighbour.exists() else {name}
    return found - sys.stdlib_module_names - {"edgeai", "tests"}


def shell_of(script: Path) -> str:
    """A script with the bodies of those functions of peers.sh that it calls."""
    text, functions = script.read_text(), (REPOSITORY / "scripts" / "peers.sh").read_text()
    bodies = re.findall(r"^(\w+)\(\) \{\n(.*?)^\}", functions, re.MULTILINE | re.DOTALL)
    return text + "".join(body for name, body in bodies if re.search(rf"^\s*{name}\b", text, re.MULTILINE))


WRAPPERS = sorted(
    path for path in (REPOSITORY / "scripts").iterdir() if "edgeai_environment .venv " in path.read_text()
)


@pytest.mark.parametrize("script", WRAPPERS, ids=lambda path: path.name)
def test_a_script_sets_up_what_its_programs_import(script: Path) -> None:
    text = shell_of(script)
    installed = distributions(re.findall(r"edgeai_environment \.venv (\w+)", text))
    providers = packages_distributions()
    for program in re.findall(r'"\$python" (?:"\$root/)?(scripts/\w+\.py)', text):
        needed = imported(REPOSITORY / program)
        missing = {name for name in needed if installed.isdisjoint(one.lower() for one in providers.get(name, [name]))}
        assert not missing, f"{script.name} runs {program}, which imports {missing}"
