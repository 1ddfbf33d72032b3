"""`edgeai eval` on the task set, and two models side by side."""

from __future__ import annotations

import pytest

from edgeai.package import Package
from tests.cli.conftest import Cli


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


@pytest.mark.parametrize(
    "arguments",
    [[], ["tiny"], ["--tasks"], ["tiny", "--tasks", "--text", "pyproject.toml"], ["tiny", "--compare", "tiny", "tiny"]],
)
def test_one_thing_at_a_time(cli: Cli, installed: Package, arguments: list[str]) -> None:
    assert cli("eval", *arguments).code == 2


def test_an_unknown_category_is_named(cli: Cli, installed: Package) -> None:
    error = cli("eval", "tiny", "--tasks", "--category", "maths", "--json").document["error"]
    assert "arithmetic" in error["hint"]
