"""What the pages about the API say without markers, beside the application: addresses, options, metrics, scopes."""

from __future__ import annotations

import re
from typing import Any

from edgeai.device.power import Power
from edgeai.device.power_governor import PowerGovernor
from edgeai.keys.key import SCOPES
from edgeai.server.app import create_app
from edgeai.server.ollama.options import NAMES
from edgeai.server.openapi.operations import OPERATIONS
from tests.fixtures.patience import get
from tests.fixtures.sources import REPOSITORY
from tests.server.pools import pool_over
from tests.server.serving import serving

KIND = re.compile(r"^# TYPE (edgeai_\w+) (\w+)$", re.MULTILINE)


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the table with this first line."""
    rows = text.split(f"\n{head}\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_ollamas_addresses() -> None:
    listed = [
        address
        for row in table(page("ollama.md"), "| address | what is different from Ollama's |")
        for address in quoted(row[0])
    ]
    there = {f"{method.upper()} {path}" for method, path in OPERATIONS if path.startswith("/api/")}
    assert sorted(listed) == sorted(there | {"GET /"})


def test_ollamas_options() -> None:
    said = re.search(r"- `options`: (.*?)\. All others", page("ollama.md"), re.DOTALL)
    assert said
    assert set(quoted(said[1])) == NAMES.keys() | {"num_predict"}


def test_metrics() -> None:
    everything = Power(celsius=50.0, limit=80.0, battery_percent=90.0, watts=3.0)
    app = create_app(pool_over({}), power=PowerGovernor(lambda: everything))
    with serving(None, app=app) as served:
        get(served.url + "/health")  # so that there is a request to be counted
        found: Any = dict(KIND.findall(get(served.url + "/metrics").text))
    there = {name: kind for name, kind in found.items() if not name.endswith("_created")}
    rows = table(page("api.md"), "| name | kind |")
    said = {name: row[1] for row in rows for name in quoted(row[0]) if name.startswith("edgeai_")}
    assert said == there


def test_scopes() -> None:
    assert [quoted(row[0])[0] for row in table(page("security.md"), "| scope | for |")] == list(SCOPES)
