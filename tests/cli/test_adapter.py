"""`edgeai adapter`, and commands that take "base:adapter"."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgeai.package import Package, Store
from tests.cli.conftest import Cli
from tests.fixtures.peft import gguf_shapes, tensors_of, write_adapter


def folder_of(path: Path, *, spread: float = 50.0) -> Path:
    return write_adapter(path, tensors_of(shapes=gguf_shapes(), spread=spread))


def test_an_adapter_is_added_used_listed_and_removed(cli: Cli, installed: Package, tmp_path: Path) -> None:
    added = cli("adapter", "add", "tiny", folder_of(tmp_path / "Clinic style"))
    assert (added.code, added.out) == (0, "tiny:clinic-style\n")
    (row,) = cli("adapter", "list", "--json").document["adapters"]
    assert (row["model"], row["state"], row["rank"]) == ("tiny:clinic-style", "ready", 4)
    assert "tiny:clinic-style" in cli("adapter", "list").out
    options = ("Hello", "--max-tokens", "8", "--temperature", "0", "--json")
    base, adapted = (cli("run", model, *options).document["token_ids"] for model in ("tiny", "tiny:clinic-style"))
    assert base != adapted
    assert cli("adapter", "remove", "tiny:clinic-style").code == 0
    assert cli("adapter", "list", "--json").document == {"adapters": [], "damaged": {}}
    gone = cli("run", "tiny:clinic-style", *options)
    assert gone.document["error"]["type"] == "NotFound"


def test_a_name_of_choice_and_json(cli: Cli, installed: Package, tmp_path: Path) -> None:
    added = cli("adapter", "add", "tiny", folder_of(tmp_path / "x"), "--name", "style", "--scale", "0.5", "--json")
    assert (added.document["model"], added.document["scale"]) == ("tiny:style", 0.5)
    assert added.document["base_digest"] == installed.model_digest


def test_what_is_wrong_is_said(cli: Cli, installed: Package, tmp_path: Path) -> None:
    assert cli("adapter", "add", "tiny", tmp_path, "--json").document["error"]["type"] == "SourceError"
    assert cli("adapter", "add", "nothing", tmp_path, "--json").document["error"]["type"] == "NotFound"
    assert cli("adapter", "remove", "tiny", "--json").document["error"]["type"] == "InvalidInput"
    bad = cli("adapter", "add", "tiny", folder_of(tmp_path / "x"), "--name", "A b", "--json")
    assert bad.document["error"]["type"] == "InvalidInput"


def test_the_list_tells_of_bases_that_are_gone(cli: Cli, installed: Package, home: Path, tmp_path: Path) -> None:
    cli("adapter", "add", "tiny", folder_of(tmp_path / "style"))
    Store(home).remove("tiny")
    (row,) = cli("adapter", "list", "--json").document["adapters"]
    assert row["state"] == "base not installed"
    (home / "adapters" / "tiny" / "style" / "adapter.json").write_text("{}")
    assert list(cli("adapter", "list", "--json").document["damaged"]) == ["tiny:style"]


def test_chat_with_an_adapter(cli: Cli, installed: Package, tmp_path: Path, monkeypatch) -> None:
    import io

    cli("adapter", "add", "tiny", folder_of(tmp_path / "style"))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    assert cli("chat", "tiny:style", "--max-tokens", "4", "--temperature", "0").code == 0


def test_build_with_an_adapter(cli: Cli, home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    result = cli("build", tiny_gguf, "--adapter", folder_of(tmp_path / "style", spread=0.5), "--json")
    assert "--bits" in result.document["error"]["hint"]
    options = ("--adapter", tmp_path / "style", "--adapter-scale", "0.5", "--bits", "8")
    result = cli("build", tiny_gguf, *options, "--json")
    assert result.document["name"] == "tiny-style"
    assert Store(home).get("tiny-style").manifest.origin.location.endswith("+ adapter style x 0.5")


def test_a_board_needs_nothing_of_the_build_half(installed: Package, home: Path, tmp_path: Path) -> None:
    """With all that `pip install edgeai` does not bring hidden, an adapter is still added and used."""
    hidden = ("onnx", "safetensors", "huggingface_hub", "gguf", "torch", "transformers")
    program = f"""
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
from edgeai.cli.main import execute
code = execute(["adapter", "add", "tiny", sys.argv[1], "--name", "style"])
sys.exit(code or execute(["run", "tiny:style", "Hello", "--max-tokens", "2", "--json"]))
"""
    command = [sys.executable, "-c", program, str(folder_of(tmp_path / "style"))]
    done = subprocess.run(command, env={**os.environ, "EDGEAI_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny:style\n")
