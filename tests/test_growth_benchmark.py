"""The growth benchmark: what follows from its figures, and a whole small run on a model of random weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.load_runner import load_runner
from edgeai.package.manifest import INT8_GRAPH_NAME
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource

SCRIPTS = Path(__file__).parents[1] / "scripts"
ABOUT = {
    "parameters": 1_000_000,
    "context_length": 4096,
    "weights_bytes": 4_000_000,
    "load_bytes": 10_000_000,
    "whole_scores_tokens": 1000,
    "token_bytes": {"float32": 4000, "int8": 1000},
}


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def visited(step: Callable[[int, int, str], float], models: tuple[str, ...] = ("made-up",)) -> dict[str, Any]:
    """A document whose steps take `step(context, rows, kv_type)` seconds, and chunks what one row does."""
    from growth_cells import chunk_starts, groups_of, rows_that_fit

    limits = [{"read_gbs": 10.0, "int8_tops": 1.0}, {"read_gbs": 12.0, "int8_tops": 1.2}]
    document: dict[str, Any] = {"threads": 2, "limits": limits, "models": {}, "visits": {}, "most_bytes": 1e8}
    for model in models:
        document["models"][model] = ABOUT
        for group in groups_of(model, ABOUT["context_length"]):
            rows = rows_that_fit(ABOUT, group, document["most_bytes"])
            made = {
                "decode": {str(count): step(group.context, count, group.kv_type) for count in rows},
                "chunks": {str(start): step(start, 1, group.kv_type) for start in chunk_starts(group.context)},
                "resident": {str(count): 1_000_000 * count for count in rows},
                "others": 0.25,
            }
            document["visits"][group.key] = [made, made]
    return document


def steps(context: int, rows: int, kv_type: str) -> float:
    """Weights at 1 GB/s, the cache at half of that."""
    return 0.004 + rows * context * ABOUT["token_bytes"][kv_type] / 0.5e9


def test_groups_end_with_the_models_context() -> None:
    from growth_cells import groups_of

    assert [group.key for group in groups_of("m", 2048)] == [
        "m/float32/128", "m/float32/512", "m/float32/2048", "m/int8/128", "m/int8/2048",
    ]  # fmt: skip
    assert max(group.context for group in groups_of("m", 1 << 20)) == 16384
    assert {group.context for group in groups_of("m", 1 << 20, [512, 2048])} == {512, 2048}


def test_rows_fit_until_memory_is_full() -> None:
    from growth_cells import Group, needed_bytes, rows_that_fit

    group = Group("m", "float32", 2048)
    assert needed_bytes(ABOUT, group, 8) == 10_000_000 + 8 * 2048 * 4000
    assert rows_that_fit(ABOUT, group, 76e6) == [1, 2, 4, 8]
    assert rows_that_fit(ABOUT, replace(group, kv_type="int8"), 76e6) == [1, 2, 4, 8, 16, 32]
    assert rows_that_fit(ABOUT, group, 1e6) == []
    assert rows_that_fit(ABOUT, group, 76e6, [1, 8, 32]) == [1, 8]


def test_the_group_that_was_visited_least_is_next() -> None:
    from growth_cells import groups_of, next_group

    groups = {group: [1] for group in [*groups_of("a", 2048), *groups_of("b", 512)]}
    document: dict[str, Any] = {"visits": {}}
    order: list[str] = []

    def context_of(key: str) -> int:
        return int(key.rpartition("/")[2])

    while group := next_group(groups, document, 2):
        document["visits"].setdefault(group.key, []).append({"decode": {"1": 0.1}})
        order.append(group.key)
    assert len(order) == 2 * len(groups)
    assert order[: len(groups)] == order[len(groups) :] == sorted(order[: len(groups)], key=context_of)


def test_a_visit_counts_when_it_measured_all_the_rows_that_are_wanted() -> None:
    from growth_cells import Group, next_group

    group = Group("m", "float32", 128)
    document: dict[str, Any] = {"visits": {group.key: [{"decode": {"1": 0.1}}]}}
    assert next_group({group: [1]}, document, 1) is None
    assert next_group({group: [1, 2]}, document, 1) == group
    document["visits"][group.key].append({"decode": {"1": 0.1, "2": 0.2}})
    assert next_group({group: [1, 2]}, document, 1) is None


def test_pieces_are_put_together() -> None:
    from growth_cells import Group, least, merged

    one, other = visited(steps, ("a", "b")), visited(steps, ("b", "c"))
    faster = {**other["visits"]["b/float32/128"][0], "decode": {"1": 1e-4, "64": 1.0}}
    other["visits"]["b/float32/128"] = [faster]
    other |= {"limits": [{"read_gbs": 50.0, "int8_tops": 5.0}], "check": {"decode": {"ratio": 1.0}}}
    whole = merged(one, other)
    assert whole["models"].keys() == {"a", "b", "c"}
    assert whole["visits"]["b/float32/128"] == [*one["visits"]["b/float32/128"], faster]
    assert least(whole, Group("b", "float32", 128), "decode")[1] == 1e-4
    assert whole["limits"] == [*one["limits"], *other["limits"]]
    assert whole["check"] == other["check"]
    assert merged(whole, other) == whole  # what is there already is not counted twice
    with pytest.raises(ValueError, match="--threads 2, the other with 1"):
        merged(one, other | {"threads": 1})
    with pytest.raises(ValueError, match="different packages of b"):
        merged(one, other | {"models": {"b": ABOUT | {"weights_bytes": 1}}})


def test_what_others_do_only_adds() -> None:
    from growth_cells import Group, least

    visits = [{"decode": {"8": 3.0, "1": 1.0}}, {"decode": {"8": 2.5}}]
    assert least({"visits": {"m/int8/128": visits}}, Group("m", "int8", 128), "decode") == {1: 1.0, 8: 2.5}
    assert least({"visits": {}}, Group("m", "int8", 128), "decode") == {}


@pytest.mark.parametrize("context", [128, 512, 4096])
def test_a_prompt_is_the_sum_of_its_chunks(context: int) -> None:
    from growth_cells import CHUNK, chunk_starts, context_share, prompt_seconds

    def chunk(start: int) -> float:
        return 0.1 + 1e-5 * start

    chunks = {start: chunk(start) for start in chunk_starts(context)}
    every = [chunk(start) for start in range(0, context, CHUNK)]
    assert prompt_seconds(chunks, context) == pytest.approx(sum(every))
    assert context_share(chunks, context) == pytest.approx(1 - 0.1 * len(every) / sum(every))


def test_a_short_prompt_is_one_chunk() -> None:
    from growth_cells import chunk_starts, prompt_seconds

    assert chunk_starts(50) == [0]
    assert prompt_seconds({0: 0.5}, 50) == 0.5


def test_a_line_weighs_relative_errors() -> None:
    from growth_cells import line

    assert line({context: 2 + 0.5 * context for context in (1, 10, 1000)}) == pytest.approx((2, 0.5))
    constant, _ = line({1: 1.0, 2: 1.0, 1000: 1100.0})
    assert constant == pytest.approx(0, abs=0.5)


def test_where_the_cache_costs_as_much_as_the_weights() -> None:
    from growth_report import context_lines

    (floats, integers) = context_lines(visited(steps))
    assert floats == ["made-up", "float32", "4.0", "8.00", "1.0", "0.5", "1000", "500"]
    assert integers[-2:] == ["4000", "2000"]


def test_rows_that_gain() -> None:
    from growth_report import rows_lines

    first = next(iter(rows_lines(visited(lambda _context, rows, _kind: 0.01 + 0.01 * rows))))
    assert first == ["made-up", "float32", "128", "1.33", "1.60", "1.78", "1.88", "1.94", "10.0", "10.0"]


def test_where_the_curves_bend() -> None:
    from growth_report import bend_lines

    document = visited(steps)
    assert list(bend_lines(document)) == [
        ["made-up", "float32", "500", "3.9", "0.2", "500"],
        ["made-up", "int8", "2000", "15.6", "1.0", "2000"],
    ]
    del document["visits"]["made-up/int8/2048"], document["visits"]["made-up/int8/4096"]
    assert list(bend_lines(document))[1] == ["made-up", "int8", "-", "15.6", "-", "-"]  # one context makes no line


def test_cells_that_do_not_fit_say_how_much_they_need() -> None:
    from growth_report import decode_lines, limits_text, report

    document = visited(steps)
    table = {tuple(row[1:3]): row[3:] for row in decode_lines(document)}
    assert table["float32", "4096"][-2] == "(0.5 GB)"
    assert table["int8", "4096"][-2] == "(0.1 GB)"
    assert "GB" not in " ".join(table["float32", "128"])
    assert table["float32", "128"][0] == f"{1 / steps(128, 1, 'float32'):.1f}"
    assert "reads 12.0 GB/s and multiplies 1.20 int8 TOPS (best of 2 runs)" in limits_text(document)
    del document["visits"]["made-up/int8/128"]
    assert "| made-up | int8 | 128 |" not in report(document)  # not visited yet


def test_plots_are_small_files(tmp_path: Path) -> None:
    from growth_plots import FIGURES, plots

    plots(visited(steps, ("one", "two")), tmp_path)
    made = sorted(path.stem for path in tmp_path.glob("*.png"))
    assert made == sorted(FIGURES)
    assert all(1000 < path.stat().st_size < 100_000 for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_caches_are_filled_with_bounded_values(repetitive_graph: Path, tiny_shape: ModelShape, kind: Any) -> None:
    from growth_worker import chunk_seconds, decode_seconds, fill

    graph = repetitive_graph if kind == "float32" else repetitive_graph.with_name(INT8_GRAPH_NAME)
    shape = replace(tiny_shape, kv_type=kind, context_length=1024)
    runner = load_runner(graph, shape, EngineSettings(threads=1, kv_type=kind, max_rows=2), 1024)
    fill(runner, 1, 700)
    assert runner.arena.occupied == {1}
    values = runner.arena.read(1, 0, 700)
    assert np.abs(values.astype(np.float32)).max() <= (1 if kind == "float32" else 127)
    assert (np.count_nonzero(values.any(axis=(0, 1, 2, 4))), values.std() > 0) == (700, True)
    assert not runner.arena.read(1, 700, 701).any()
    assert decode_seconds(runner, 512, 2) > 0
    assert chunk_seconds(runner, 384, 128) > 0


@pytest.mark.slow
def test_a_whole_run_on_a_small_model(smollm_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continued where it ended, until every group has been visited twice."""
    import bench_growth
    from growth_cells import CONTEXTS, ROWS, groups_of
    from growth_report import report
    from synthetic_checkpoint import LLAMA, shaped, write_checkpoint

    config = shaped(LLAMA, 64, 128, 2, 4, 2) | {"vocab_size": 49152, "max_position_embeddings": 600}
    write_checkpoint(tmp_path / "small", config, GGUFSource(smollm_gguf))
    package = Package.open(build_package(str(tmp_path / "small"), bits=4, home=tmp_path, cache=tmp_path).package)
    packages = {bench_growth.DEFAULT: package.path}
    about = bench_growth.described(package)
    assert about["token_bytes"] == {"float32": 2 * 2 * 2 * 16 * 4, "int8": 2 * 2 * 2 * 16}
    groups = groups_of(bench_growth.DEFAULT, about["context_length"])
    document = {"threads": 1, "limits": [], "models": {bench_growth.DEFAULT: about}, "visits": {}, "most_bytes": 1e9}
    monkeypatch.setattr(bench_growth, "CHECK_CONTEXT", 384)
    chosen = {"models": [bench_growth.DEFAULT], "contexts": CONTEXTS, "rows": ROWS, "kv_types": ("float32", "int8")}
    args = argparse.Namespace(**chosen, json=tmp_path / "growth.json", visits=1, seconds=600)
    bench_growth.measure(document, packages, args)
    again = json.loads(args.json.read_text())
    assert again == document
    assert all(figures["least"] <= figures["ratio"] <= figures["most"] for figures in again["check"].values())
    args.visits = 2
    bench_growth.measure(again, packages, args)
    assert {key: len(visits) for key, visits in again["visits"].items()} == {group.key: 2 for group in groups}
    assert again["check"] == document["check"]
    assert all(0 <= visit["others"] < 1 for visits in again["visits"].values() for visit in visits)
    assert again["visits"][groups[0].key][0]["decode"].keys() == {"1", "2", "4", "8", "16", "32"}
    tables = report(again)
    assert len(tables.splitlines()) > 30
    assert "nan" not in tables
