"""Children that load, answer, die, hang and refuse: the parent sees what happened and lives on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.package.package import Package
from edgeai.tuning.child import Child
from edgeai.tuning.profile import Golden
from tests.fixtures.patience import PATIENCE
from tests.tuning.conftest import Misbehaviour

SETTINGS = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=1 << 24)
ASK = {"task": "ask", "expected": Golden().model_dump(mode="json")}


def children() -> list[int]:
    return [process.pid for process in psutil.Process().children(recursive=True)]


def test_a_child_answers_and_goes(package: Package) -> None:
    with Child(package.path, SETTINGS, timeout=PATIENCE) as child:
        answer = child.ask(ASK, timeout=PATIENCE)
        assert len(answer["tokens"]) >= 1
        assert answer["gap"] < 1e-3
        assert child.ask(ASK, timeout=PATIENCE)["tokens"] == answer["tokens"]
        assert child.private_bytes > 10_000_000
        (pid,) = children()
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"  # killed before a server is
        assert Path("/proc/self/oom_score_adj").read_text().strip() != "1000"
    assert not children()


@pytest.mark.parametrize(
    ("act", "seen"),
    [
        ("SIGILL", "loading the model ended in an illegal instruction"),
        ("SIGSEGV", "loading the model ended in a memory fault"),
        ("SIGKILL", "most likely because memory ran out"),
        ("raise", "RuntimeError: no such kernel"),
    ],
)
def test_deaths_while_loading(package: Package, misbehaviour: Misbehaviour, act: str, seen: str) -> None:
    misbehaviour.when(act)
    with pytest.raises(TrialFailed, match=seen):
        Child(package.path, SETTINGS, timeout=PATIENCE, worker=misbehaviour.worker)
    assert not children()


def test_a_death_while_answering(package: Package, misbehaviour: Misbehaviour) -> None:
    misbehaviour.when("SIGILL when answering")
    with Child(package.path, SETTINGS, timeout=PATIENCE, worker=misbehaviour.worker) as child:
        with pytest.raises(TrialFailed, match="answering ended in an illegal instruction"):
            child.ask(ASK, timeout=PATIENCE)
        with pytest.raises(TrialFailed, match="answering ended in an illegal instruction"):
            child.ask(ASK, timeout=PATIENCE)  # a second question does not break the pipe on us


@pytest.mark.parametrize("act", ["hang", "hang when answering"])
def test_hangs_end_in_time_and_leave_no_process(package: Package, misbehaviour: Misbehaviour, act: str) -> None:
    misbehaviour.when(act)
    started = time.monotonic()
    loading = PATIENCE if "answering" in act else 2
    with (
        pytest.raises(TrialFailed, match="took more than"),
        Child(package.path, SETTINGS, timeout=loading, worker=misbehaviour.worker) as child,
    ):
        child.ask(ASK, timeout=2)
    assert time.monotonic() - started < PATIENCE
    assert not children()


def test_what_is_no_answer(package: Package, misbehaviour: Misbehaviour) -> None:
    misbehaviour.when("garbage")
    with (
        Child(package.path, SETTINGS, timeout=PATIENCE, worker=misbehaviour.worker) as child,
        pytest.raises(TrialFailed, match="answering gave"),
    ):
        child.ask(ASK, timeout=PATIENCE)


def test_refusals_come_as_they_are(package: Package, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="no package at"):
        Child(tmp_path / "nothing", SETTINGS, timeout=PATIENCE)
    with Child(package.path, SETTINGS, timeout=PATIENCE) as child:
        with pytest.raises(TrialFailed, match="there is no task 'dance'"):
            child.ask({"task": "dance"}, timeout=PATIENCE)
        assert child.ask(ASK, timeout=PATIENCE)["tokens"]  # and it still answers


def test_what_libraries_print_is_no_answer(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Standard output is for answers alone: a library that greets its users does not disturb."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys, threading\n"
        "if 'edgeai.tuning.worker' in ' '.join(sys.orig_argv):\n"
        "    import edgeai.tuning.worker as worker\n"
        "    real = worker.do\n"
        "    worker.do = lambda *a: (print('hello from a library', flush=True), real(*a))[1]\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ".")]))
    with Child(package.path, SETTINGS, timeout=PATIENCE) as child:
        assert child.ask(ASK, timeout=PATIENCE)["tokens"]
