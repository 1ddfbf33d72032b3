"""The command line, run in this process against a home of its own that holds one tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeai.cli.main import execute
from edgeai.package import Package, Store


@dataclass(frozen=True)
class Result:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def installed(home: Path, tiny_package: Package) -> Package:
    return Store(home).install(tiny_package.path)


@pytest.fixture
def cli(home: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str | Path) -> Result:
        capfd.readouterr()
        code = execute([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return run
