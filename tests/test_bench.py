"""The benchmark beside llama.cpp: its settings, what a crash of one part leaves, and its files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeai.engine.config import EngineSettings
from edgeai.model import Model
from tests.server.float_model import float_package

SCRIPTS = Path(__file__).parents[1] / "scripts"

# A llama.cpp that answers as bench_worker does; with flash attention decoding is faster, and reading prompts slower.
PEER = """
import json, sys
flash, speeds = 0, {"prefill": (100, 80), "decode": (10, 15), "batch": (30, 60)}
print(json.dumps({"version": "made up"}), flush=True)
for line in sys.stdin:
    task, argument, seed = json.loads(line)
    if task == "flash attention":
        flash = argument
    print(json.dumps({"value": speeds[task][flash] if task in speeds else flash}), flush=True)
"""


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def interpreter(folder: Path, program: str) -> str:
    """An "interpreter" that runs this program, whatever it is told to run."""
    (folder / "program.py").write_text(program)
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} {folder / 'program.py'}\n")
    path.chmod(0o755)
    return str(path)


def test_the_peer_computes_each_metric_as_it_is_faster(tmp_path: Path) -> None:
    from bench_peers import METRICS, Peer, flash_text

    with Peer(interpreter(tmp_path, PEER), tmp_path / "file.gguf", 2) as peer:
        peer.settle()
        assert peer.version == "made up"
        assert peer.tried["prefill_512"] == {"on": 80, "off": 100}
        assert {metric: peer.measure(metric, 1) for metric in METRICS} == {
            "prefill_512": 100, "decode_128": 15, "decode_2000": 15, "decode_batch8": 60,
        }  # fmt: skip
    told = flash_text({"same": peer.tried})
    assert "prefill_512 off (80.0 on and 100.0 off), decode_128 on (15.0 on and 10.0 off)" in told


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    from bench_peers import Peer

    with pytest.raises(RuntimeError, match="a worker died"):
        Peer(interpreter(tmp_path, "raise SystemExit(4)"), tmp_path / "file.gguf", 2)


def test_a_server_has_each_figure_of_its_better_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_servers

    figures = {
        "on": {"peak_rss": 300.0, "first_token": 0.5, "cpu_seconds_per_1000_tokens": 8.0},
        "off": {"peak_rss": 350.0, "first_token": 0.4, "cpu_seconds_per_1000_tokens": 7.0},
    }
    for found in figures.values():
        found |= dict.fromkeys(bench_servers.METRICS.keys() - found.keys() - set(bench_servers.IDLE), 1.0)
    asked: list[tuple[str, float]] = []

    def measure(start: str, plan: Any, _number: int) -> dict[str, float]:
        asked.append((start, plan.idle))
        rest = {"idle_cpu": 0.1} if plan.idle else {}
        return figures[start] | rest

    monkeypatch.setattr(bench_servers, "measure", measure)
    plan = bench_servers.Plan(threads=2, context=512, idle=60, kv_type="int8")
    peer = bench_servers.Contestant({"on": "on", "off": "off"}).settled(plan)
    assert asked == [("on", 0), ("off", 0)]
    found = peer.measure(plan, 1)
    assert (found["peak_rss"], found["first_token"], found["cpu_seconds_per_1000_tokens"]) == (300.0, 0.4, 7.0)
    assert (peer.setting("idle_cpu"), found["idle_cpu"]) == ("off", 0.1)
    assert asked[2:] == [("on", 60), ("off", 60)]
    assert "peak_rss on (300.00 on and 350.00 off)" in bench_servers.settings_text({"same": peer})


def test_a_server_of_one_setting_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_servers

    asked: list[str] = []
    monkeypatch.setattr(bench_servers, "measure", lambda start, _plan, _number: asked.append(start) or {"peak_rss": 1})
    assert bench_servers.Contestant({"": "ours"}).measure(bench_servers.Plan(2, 512, 0, "int8"), 0) == {"peak_rss": 1}
    assert asked == ["ours"]


def comparison(metric: str) -> Any:
    from bench_rows import Comparison, Row

    row = Row(metric, 2.0, 1.0, 3.0, 2.0, 2.0, 1.5)
    return Comparison([row], {metric: f"label of {metric}"}, [f"a note on {metric}"])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | None:
    import bench

    monkeypatch.setattr(sys, "argv", ["bench.py", "package", "file.gguf", *arguments])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    return int(ended.value.code or 0)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Replaces both measurements by what they find or raise; returns what they were asked."""

    def replace(peers: Any, servers: Any) -> dict[str, Any]:
        import bench_peers
        import bench_servers

        asked: dict[str, Any] = {}

        def part(name: str, result: Any) -> Callable[..., Any]:
            def compare(*_: object, rounds: int, **__: object) -> Any:
                asked[name] = rounds
                if isinstance(result, BaseException):
                    raise result
                return result

            return compare

        monkeypatch.setattr(bench_peers, "compare", part("peers", peers))
        monkeypatch.setattr(bench_servers, "compare", part("servers", servers))
        return asked

    return replace


def test_what_was_found_is_printed_and_written(
    parts: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = parts(comparison("decode_128"), comparison("peak_rss"))
    files = {"--json": tmp_path / "rows.json", "--markdown": tmp_path / "rows.md"}
    options = [text for option, path in files.items() for text in (option, str(path))]
    assert run(monkeypatch, *options, "--rounds", "4") == 0
    assert asked == {"peers": 4, "servers": 4}
    printed = capsys.readouterr().out
    assert files["--markdown"].read_text() == printed
    assert "| label of decode_128 | 2 | 1 | 2.00x | 3 | 2 | 1.50x |" in printed
    assert "a note on peak_rss" in printed
    document = json.loads(files["--json"].read_text())
    assert [row["metric"] for row in document["rows"]] == ["decode_128", "peak_rss"]
    assert document["date"][:2] == "20"
    assert document["versions"].keys() >= {"edgeai", "onnxruntime"}
    assert document["machine"]["cores"] >= 1


@pytest.mark.parametrize("failing", ["peers", "servers"])
def test_a_part_that_fails_loses_nothing_of_the_other(
    parts: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    failing: str,
) -> None:
    found = {"peers": comparison("decode_128"), "servers": comparison("peak_rss")}
    parts(**(found | {failing: RuntimeError("llama.cpp crashed")}))
    assert run(monkeypatch, "--json", str(tmp_path / "rows.json")) == 1
    assert "not measured, for llama.cpp crashed" in capsys.readouterr().out
    [row] = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["metric"] == ("peak_rss" if failing == "peers" else "decode_128")


def test_the_table_says_by_what_right_the_fastest_package_stands_there(smollm_package: Any) -> None:
    import bench

    [note] = bench.fastest(smollm_package.path).notes
    assert "./scripts/bench_quantizers --plans fastest --peers Q4_0" in note
    assert f"{smollm_package.manifest.quality.mean_kl:.3f} nats per token" in note


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (("avx2", "avx_vnni", "avx512_vnni"), "/proc/cpuinfo lists avx512_vnni, avx_vnni"),
        (("neon",), "/proc/cpuinfo lists no instruction for it"),
    ],
)
def test_nothing_is_said_of_instructions_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], told: str
) -> None:
    import bench_machine

    from edgeai.device.profile import Cpu

    cpu = Cpu("x86_64", "made up", features, cores=2, threads=2, usable=2.0)
    monkeypatch.setattr(bench_machine, "read_cpu", lambda: cpu)
    assert bench_machine.multiplies_bytes_by() == told


def test_where_two_answers_part_their_gap_is_known(tmp_path: Path) -> None:
    from bench_speculation import answer, names, with_alternatives
    from greedy_answers import Answer, tie

    prompt = [5, 6, 7, 8, 5, 6]
    with Model.load(float_package(tmp_path), EngineSettings(threads=1, kv_budget_bytes=1 << 22)) as model:
        _, tokens = answer(model.engine, prompt, 8)
        full = with_alternatives(model.engine, prompt, 8)
    assert full.tokens == names(tokens)
    assert tie(full, Answer(200, tokens=names(tokens))) is None
    best, second = sorted(full.likely[3].items(), key=lambda item: -item[1])[:2]
    assert best[0] == full.tokens[3]
    other = Answer(200, tokens=(*full.tokens[:3], second[0], "elsewhere"))
    assert tie(full, other) == pytest.approx(best[1] - second[1])


@pytest.mark.slow
def test_drafts_are_measured_on_a_real_model(
    smollm_package: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_speculation

    monkeypatch.setattr(bench_speculation, "TASKS", {"free 1": bench_speculation.TASKS["free 1"]})
    monkeypatch.setattr(bench_speculation, "TOKENS", 24)
    files = ["--json", str(tmp_path / "rows.json")]
    monkeypatch.setattr(sys, "argv", ["bench_speculation.py", str(smollm_package.path), "--rounds", "1", *files])
    bench_speculation.main()
    [row] = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["ratio"] > 0
    assert row["parted"] is None or row["parted"] < 1
    assert "| free 1 |" in capsys.readouterr().out
