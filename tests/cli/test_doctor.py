"""`edgeai doctor`: it reports and explains."""

from __future__ import annotations

from edgeai.cli.memory_report import memory_choices
from edgeai.config import home_dir
from edgeai.device.profile import Memory
from edgeai.package import Package
from edgeai.package.store import Store
from tests.cli.conftest import Cli


def test_the_report_as_json(cli: Cli, installed: Package) -> None:
    document = cli("doctor", "--json").document
    assert set(document) == {
        "edgeai", "python", "cpu", "memory", "disk", "installed", "onnxruntime", "models", "choices", "settings",
    }  # fmt: skip
    assert document["cpu"]["cores"] >= 1
    assert 0 < document["memory"]["available"] <= document["memory"]["total"]
    assert document["disk"]["free"] > 0
    assert document["onnxruntime"]["works"]
    assert document["models"] == ["tiny"]
    whats = {entry["what"] for entry in document["choices"]}
    assert {"kernels", "threads", "reserve", "memory", "pressure", "telemetry"} <= whats
    assert all(entry["why"] for entry in document["choices"])
    (plan,) = (entry for entry in document["choices"] if entry["what"] == "memory")
    assert plan["choice"] == "tiny"
    assert "rows" in plan["why"]
    assert "KV cache" in plan["why"]


def test_the_report_for_people(cli: Cli) -> None:
    out = cli("doctor").out
    assert "kernels" in out
    assert "none: `edgeai build RECIPE` makes one" in out


def test_a_model_that_does_not_fit_is_named(installed: Package) -> None:
    memory = Memory(total=64 << 20, available=10 << 20, limit=None, swap=100 << 20, compressed=True)
    rows = {what: (choice, why) for what, choice, why in memory_choices(memory, Store(home_dir()))}
    assert rows["memory"][0] == "tiny does not fit"
    assert "10 MiB are free" in rows["memory"][1]
    assert "105 MB of compressed swap are not counted on" in rows["reserve"][1]
