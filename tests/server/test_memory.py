"""A real engine behind the real server while memory is scarce: refusals that say when to come again, and its state."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from edgeai import model as model_module
from edgeai.engine.config import EngineSettings
from edgeai.engine.governor import Governor
from edgeai.model import AsyncModel
from tests.engine.test_memory import Machine
from tests.fixtures import patience
from tests.server.float_model import float_package
from tests.server.serving import Served, serving

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def metric(served: Served, name: str) -> float:
    lines = patience.get(f"{served.url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}{{")).split()[-1])


def test_refusals_and_recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(model_module, "make_governor", lambda: Governor(machine, 8 << 20, clock=machine.clock))
    settings = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=1 << 24)
    with serving(AsyncModel.load(float_package(tmp_path), settings)) as served:

        def chat() -> httpx.Response:
            return patience.post(f"{served.url}/v1/chat/completions", json=CHAT)

        assert chat().status_code == 200
        machine.left = 4096
        refused = chat()
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "overloaded"
        assert "memory is scarce" in refused.json()["error"]["message"]
        memory = patience.get(f"{served.url}/health").json()["memory"]
        assert memory == {"level": 4, "state": "refusing", "available_bytes": 4096}
        assert metric(served, "edgeai_memory_level") == 4
        assert metric(served, "edgeai_memory_available_bytes") == 4096
        machine.left = 1 << 40
        assert served.eventually(lambda: metric(served, "edgeai_memory_level") == 0)  # with nobody asking
        assert chat().status_code == 200
