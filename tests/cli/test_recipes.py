"""`edgeai recipes`, and licences that have to be accepted on the command line."""

from __future__ import annotations

from pathlib import Path

from edgeai.recipe import recipe_names
from tests.cli.conftest import Cli
from tests.fixtures.gguf_files import tiny_llama
from tests.fixtures.hub_server import HubServer, Repository


def test_the_list_has_every_recipe_with_what_it_needs(cli: Cli) -> None:
    document = cli("recipes", "--json").document
    entries = {entry["name"]: entry for entry in document["recipes"]}
    assert set(entries) == set(recipe_names())
    assert document["machine"]["memory"]["total"] > 0
    assert [entry["parameters"] for entry in document["recipes"]] == sorted(e["parameters"] for e in entries.values())
    gemma = entries["gemma-3-1b-it"]
    assert gemma["licence"]["open"] is False
    assert gemma["fits"]["verdict"] in {"yes", "tight", "slow", "no"}
    assert gemma["estimates"]["package_bytes"] < gemma["estimates"]["download_bytes"]
    assert entries["qwen3-0.6b"]["licence"]["open"] is True


def test_the_list_for_people(cli: Cli) -> None:
    result = cli("recipes")
    assert "qwen2.5-0.5b-instruct" in result.out
    assert "LicenseRef-gemma *" in result.out
    assert "--accept-licence" in result.err


def test_one_recipe(cli: Cli) -> None:
    text = cli("recipes", "show", "llama-3.2-1b-instruct").out
    for words in ("Built with Llama", "needs --accept-licence", "9213176726f574b556790deb65791e0c5aa438b6", "context"):
        assert words in text
    document = cli("recipes", "show", "llama-3.2-1b-instruct", "--json").document
    assert document["recipe"]["size"]["layers"] == 16
    assert cli("recipes", "show", "llama-3.2").code == 1


def test_a_branch_shows_the_commit_it_was_at_first(cli: Cli, hub_server: HubServer) -> None:
    show = "recipes", "show", "ernie-4.5-0.3b"
    assert "not pinned; the first download records the commit" in cli(*show).out
    files = {"config.json": b"{}", "model.safetensors": b"x" * 2000}
    hub_server.repositories["baidu/ERNIE-4.5-0.3B-PT"] = Repository(files)
    assert cli("fetch", "ernie-4.5-0.3b").code == 0
    assert f"which is commit {Repository({}).commit} here" in cli(*show).out


def test_a_closed_licence_is_refused_until_it_is_accepted(cli: Cli, hub_server: HubServer, home: Path) -> None:
    hub_server.repositories["a/b"] = Repository({"tiny.gguf": tiny_llama().to_bytes()}, licence="llama3.2")
    for command in ("build", "fetch"):
        error = cli(command, "hub:a/b", "--json").document["error"]
        assert error["type"] == "LicenceNotAccepted"
        assert "https://www.llama.com/" in error["hint"]
    assert cli("fetch", "hub:a/b", "--dry-run").code == 0
    assert cli("fetch", "gemma-3-1b-it", "--json").document["error"]["type"] == "LicenceNotAccepted"
    assert hub_server.gets("tiny.gguf") == []
    assert cli("fetch", "hub:a/b", "--accept-licence").code == 0
    assert cli("build", "hub:a/b", "--accept-licence").code == 0
