"""Power and heat, as the server tells of them, and its health for whoever watches it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeai.device.power import Power
from edgeai.device.power_governor import PowerGovernor
from edgeai.server.app import create_app
from tests.fixtures.patience import PATIENCE
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import pool_of, serving

MESSAGE = {"messages": [{"role": "user", "content": "Hello"}]}
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"


class Board:
    """A server on a device that says what it is told to."""

    def __init__(self) -> None:
        self.power = Power()
        self.now = 0.0
        self.model = ScriptedModel(Script(text="Yes."))

    def becomes(self, **power: Any) -> None:
        self.power, self.now = Power(**power), self.now + 100

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE)


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()
    governor = PowerGovernor(lambda: made.power, lambda: made.now)
    with serving(made.model, app=create_app(pool_of(made.model), power=governor)) as served:
        made.url = served.url
        yield made


def test_a_restrained_board_says_so_everywhere(board: Board) -> None:
    board.becomes(celsius=79.0, on_battery=True, battery_percent=15.0, watts=6.5)
    answer = httpx.post(f"{board.url}/v1/chat/completions", json=MESSAGE, timeout=PATIENCE)
    assert answer.headers["edgeai-restrained"] == "heat, battery at 15 %"
    assert answer.headers["edgeai-duty"] == "0.60"
    device = board.get("/status").json()["device"]
    assert (device["celsius"], device["battery_percent"], device["on_battery"]) == (79.0, 15.0, True)
    assert (device["restrained"], device["duty"] < 1) == ("heat, battery at 15 %", True)
    assert board.get("/status").json()["counts"]["rows"] == 4
    metrics = board.get("/metrics").text
    for line in (
        "edgeai_temperature_celsius 79.0",
        "edgeai_battery_percent 15.0",
        "edgeai_batch_refused 1.0",
        "edgeai_rows{",
    ):
        assert line in metrics


def test_a_board_at_ease_says_nothing(board: Board) -> None:
    assert "edgeai-restrained" not in board.get("/health").headers
    assert board.get("/status").json()["device"]["restrained"] == ""
    metrics = board.get("/metrics").text
    assert "edgeai_duty_ratio 1.0" in metrics
    assert "edgeai_battery_percent" not in metrics  # it has none


def test_ready_follows_what_is_refused(board: Board) -> None:
    assert (board.get("/health/live").status_code, board.get("/health/ready").status_code) == (200, 200)
    board.becomes(on_battery=True, battery_percent=2.0)
    refused = board.get("/health/ready")
    assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (
        503,
        {"status": "battery at 2 %"},
        "5",
    )
    assert board.get("/health/live").status_code == 200


def test_an_engine_that_does_not_come_back_is_dead(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    original = board.model.stats
    monkeypatch.setattr(board.model, "stats", lambda: replace(original(), alive=False))
    for path in ("/health/live", "/health/ready"):
        answer = board.get(path)
        assert (answer.status_code, "does not come back" in answer.json()["status"]) == (503, True)


def test_the_dashboard_shows_metrics_that_there_are(board: Board) -> None:
    board.becomes(celsius=50.0, limit=80.0, battery_percent=90.0, watts=3.0)
    httpx.post(f"{board.url}/v1/chat/completions", json=MESSAGE, timeout=PATIENCE)
    there = set(re.findall(r"^(edgeai_\w+)", board.get("/metrics").text, re.MULTILINE))
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"edgeai_\w+", target["expr"])
    }
    assert len(shown) > 15
    assert shown <= there
