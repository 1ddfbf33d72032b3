"""`ask`, `status`, `chat` and `completion`, against a real server."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeai.cli.board import Board
from edgeai.discovery.browse import Board as Found
from edgeai.errors import NotFound, Overloaded
from tests.cli.conftest import Cli
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(ScriptedModel(Script(text="It depends."))) as server:
        monkeypatch.setenv("EDGEAI_BOARD", server.url)
        yield server


def test_a_question(cli: Cli, served: Served) -> None:
    assert cli("ask", "Why?").out == "It depends.\n"
    assert json.loads(cli("ask", "Why?", "--json").out) == {"text": "It depends."}


def test_files_and_system_prompt_go_with_it(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The well is dry.", encoding="utf-8")
    result = cli("ask", "Why?", "--file", str(tmp_path / "notes.txt"), "--system", "Be brief.")
    assert result.code == 0
    prompt = served.model.tokenizer.decode(served.model.seen[-1][0])
    assert "Be brief." in prompt
    assert "[notes.txt]\nThe well is dry.\n\nWhy?" in prompt


def test_files_that_are_not_there(cli: Cli, served: Served) -> None:
    result = cli("ask", "Why?", "--file", "/nowhere.txt")
    assert (result.code, "cannot read /nowhere.txt" in result.err) == (1, True)


def test_a_conversation(cli: Cli, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\nAnd then?\n/quit\n"))
    assert cli("chat").out == "It depends.\nIt depends.\n"


def test_what_a_board_does(cli: Cli, served: Served) -> None:
    cli("ask", "Why?")
    lines = dict(line.split(maxsplit=1) for line in cli("status").out.splitlines())
    assert served.model.name in lines["models"]
    assert lines["requests"] == "0 running, 0 waiting"
    assert json.loads(cli("status", "--json").out)["counts"]["running"] == 0


def test_a_board_that_is_off(cli: Cli) -> None:
    result = cli("ask", "Why?", "--board", "http://127.0.0.1:9")
    assert result.code == 1
    assert "http://127.0.0.1:9 does not answer" in result.err
    assert "edgeai discover" in result.err


def test_what_the_board_refuses_is_said(cli: Cli, served: Served) -> None:
    result = cli("ask", "Why?", "--model", "nobody")
    assert (result.code, "nobody" in result.err) == (1, True)
    served.model.script = Script(failure=Overloaded("it is full", retry_after=7), fail_after=0)
    assert "it is full" in cli("ask", "Why?").err


def test_names_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Found("clinic", "http://10.0.0.7:8080", "1")]
    monkeypatch.setattr("edgeai.discovery.browse.discover", lambda _seconds: found)
    assert Board.named(None, None).url == "http://127.0.0.1:8080"
    assert Board.named("clinic", "k") == Board("http://10.0.0.7:8080", "k")
    assert Board.named("10.0.0.1", None).url == "http://10.0.0.1:8080"
    assert Board.named("10.0.0.1:99", None).url == "http://10.0.0.1:99"
    assert Board.named("https://pi.local:8443/", None).url == "https://pi.local:8443"
    assert Board.named("pi.local", None).url == "http://pi.local:8080"
    with pytest.raises(NotFound, match=r"no board 'school' is on this network.*there is clinic"):
        Board.named("school", None)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_scripts(cli: Cli, shell: str) -> None:
    assert "_EDGEAI_COMPLETE" in cli("completion", shell).out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands(tmp_path: Path) -> None:
    script = """
    eval "$(edgeai completion bash)"
    COMP_WORDS=(edgeai dis); COMP_CWORD=1
    _edgeai_completion edgeai dis edgeai
    echo "${COMPREPLY[@]}"
    """
    binary = tmp_path / "edgeai"
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeai "$@"\n')
    binary.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout.split() == ["discover"], result.stderr
