"""A small float package, and a worker that misbehaves on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeai.package.package import Package
from tests.server.float_model import float_package
from tests.tuning.misbehaving_worker import VARIABLE

MISBEHAVING = (sys.executable, str(Path(__file__).with_name("misbehaving_worker.py")))


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return float_package(tmp_path_factory.mktemp("tuning"))


class Misbehaviour:
    """A worker that behaves as told with some settings, and a list of the settings it was started with."""

    worker: Sequence[str] = MISBEHAVING

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self._monkeypatch, self._log = monkeypatch, log

    def when(self, act: str, **settings: Any) -> None:
        """From now on children with these settings do `act`; the last rule that fits counts."""
        self._rules = [*getattr(self, "_rules", []), [settings, act]]
        self._monkeypatch.setenv(VARIABLE, json.dumps({"rules": self._rules, "log": str(self._log)}))

    def forget(self) -> None:
        self._rules: list[list[Any]] = []
        self._monkeypatch.setenv(VARIABLE, json.dumps({"rules": [], "log": str(self._log)}))

    @property
    def started(self) -> list[Mapping[str, Any]]:
        """Settings of every child so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


@pytest.fixture
def misbehaviour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Misbehaviour:
    made = Misbehaviour(monkeypatch, tmp_path / "children.jsonl")
    made.forget()
    return made
