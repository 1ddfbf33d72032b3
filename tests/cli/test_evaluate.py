"""`edgeai eval` on the task set, and two models side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.package import Package
from tests.cli.conftest import Cli
from tests.fixtures.sources import DATA


def test_tasks_give_a_score_with_an_interval(cli: Cli, installed: Package) -> None:
    document = cli("eval", "tiny", "--tasks", "--category", "reading", "--json").document
    assert document["digest"] == installed.digest
    assert document["score"]["total"] == len(document["answers"]) == 28
    assert document["score"]["interval"]["low"] <= document["score"]["share"] <= document["score"]["interval"]["high"]
    assert list(document["categories"]) == ["reading"]
    assert "95 % interval" in cli("eval", "tiny", "--tasks", "--category", "reading").out


def test_a_model_beside_itself_shows_no_difference(cli: Cli, installed: Package) -> None:
    result = cli("eval", "--compare", "tiny", installed.path, "--category", "format", "--json")
    comparison = result.document["comparison"]
    assert (comparison["difference"], comparison["only_first"], comparison["only_second"]) == (0, 0, 0)
    assert comparison["p_value"] == 1
    assert "no difference can be told" in cli("eval", "--compare", "tiny", "tiny", "--category", "format").out


def test_an_int8_cache_is_held_against_floats(cli: Cli, installed: Package, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text((DATA / "held_out.txt").read_text(encoding="utf-8")[:600], encoding="utf-8")
    plain = cli("eval", "tiny", "--text", text, "--context", "64", "--json").document
    found = cli("eval", "tiny", "--text", text, "--context", "64", "--kv-type", "int8", "--json").document
    assert found["reference"] == {name: plain[name] for name in ("perplexity", "tokens", "chunks")}
    assert 0 < found["mean_kl"] <= found["p99_kl"] <= found["max_kl"]
    told = cli("eval", "tiny", "--text", text, "--context", "64", "--kv-type", "int8").out
    assert f"{found['measured']['perplexity']:.4f} with an int8 cache, {plain['perplexity']:.4f} without" in told
    same = cli("eval", "tiny", "--text", text, "--context", "64", "--kv-type", "float32", "--json").document
    assert same == plain


def test_weights_for_prompts_are_held_against_the_plain_ones(cli: Cli, tiny_gguf: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text((DATA / "held_out.txt").read_text(encoding="utf-8")[:600], encoding="utf-8")
    asked = ["--text", text, "--context", "64"]
    name = cli("build", tiny_gguf, "--prompt-weights", "--json").document["name"]
    found = cli("eval", name, *asked, "--prompt-weights", "--json").document
    assert found["reference"]["perplexity"] == cli("eval", name, *asked, "--json").document["perplexity"]
    assert 0 < found["mean_kl"] < 0.05
    told = cli("eval", name, *asked, "--prompt-weights", "--kv-type", "int8").out
    assert "with an int8 cache and weights for prompts" in told
    cli("build", tiny_gguf)
    error = cli("eval", name, *asked, "--prompt-weights", "--json").document["error"]
    assert "--prompt-weights" in error["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tiny"],
        ["tiny", "--tasks", "--kv-type", "int8"],
        ["tiny", "--tasks", "--prompt-weights"],
        ["--tasks"],
        ["tiny", "--tasks", "--text", "pyproject.toml"],
        ["tiny", "--compare", "tiny", "tiny"],
    ],
)
def test_one_thing_at_a_time(cli: Cli, installed: Package, arguments: list[str]) -> None:
    assert cli("eval", *arguments).code == 2


def test_an_unknown_category_is_named(cli: Cli, installed: Package) -> None:
    error = cli("eval", "tiny", "--tasks", "--category", "maths", "--json").document["error"]
    assert "arithmetic" in error["hint"]
