"""The parent's side of an export: a child process that fails, dies, talks, or is not there at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from edgeai.build import optimum_export
from edgeai.build.optimum_export import child_environment, require_exporter, run_exporter
from edgeai.errors import EdgeaiError, UnsupportedModel

# Stands in for the interpreter; it is called as: python -P -m edgeai.exporter.child TASK REQUEST ANSWER.
FAKE = f"#!{sys.executable}\nimport json, os, sys\nmodule, task, request, answer = sys.argv[3:]\n"


@pytest.fixture
def python(tmp_path: Path):
    def write(body: str) -> str:
        path = tmp_path / "python"
        path.write_text(FAKE + body)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def test_request_and_result_travel_as_json(python, capsys: pytest.CaptureFixture[str]) -> None:
    fake = python(
        "print('chatter'); print('warning', file=sys.stderr)\n"
        "asked = json.load(open(request))\n"
        "json.dump({'result': {'module': module, 'task': task, 'asked': asked}}, open(answer, 'w'))\n"
    )
    result = run_exporter("text-generation", {"folder": "ä", "tokens": 3}, python=fake)
    assert result == {
        "module": "edgeai.exporter.child",
        "task": "text-generation",
        "asked": {"folder": "ä", "tokens": 3},
    }
    captured = capsys.readouterr()
    assert captured.out == ""  # standard output stays free for results
    assert "chatter" in captured.err
    assert "warning" in captured.err


def test_errors_of_the_child_are_raised_here(python) -> None:
    error = {"kind": "UnsupportedModel", "message": "no such model", "hint": "another"}
    fake = python(f"json.dump({{'error': {error!r}}}, open(answer, 'w'))\n")
    with pytest.raises(UnsupportedModel, match="no such model") as caught:
        run_exporter("text-generation", {}, python=fake)
    assert caught.value.hint == "another"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('no memory')", "code 1: no memory"),
        ("os.kill(os.getpid(), 9)", "code -9"),
        ("", "code 0: it said nothing"),
    ],
)
def test_a_child_that_dies(python, body: str, said: str) -> None:
    with pytest.raises(EdgeaiError, match=said):
        run_exporter("text-generation", {}, python=python(body))


def test_the_child_is_offline_and_silent(python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    fake = python("json.dump({'result': dict(os.environ)}, open(answer, 'w'))\n")
    environment = run_exporter("text-generation", {}, python=fake)
    assert environment["HF_HUB_OFFLINE"] == environment["ORT_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "1"
    assert environment["PYTHONPATH"].split(os.pathsep)[-1] == "/elsewhere"
    assert (Path(environment["PYTHONPATH"].split(os.pathsep)[0]) / "edgeai" / "exporter" / "child.py").is_file()


def test_the_real_child_reports_the_errors_of_its_task(tmp_path: Path) -> None:
    """With this interpreter, and a task whose packages may be missing: the child must say so, not hang."""
    with pytest.raises(EdgeaiError, match="export ended with code 1"):
        run_exporter("no-such-task", {})
    assert child_environment()["TRANSFORMERS_OFFLINE"] == "1"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum_export, "PACKAGES", ("json", "no_such_package"))
    with pytest.raises(EdgeaiError, match="no no_such_package") as caught:
        require_exporter()
    assert "pip install 'edgeai[export]'" in caught.value.hint
