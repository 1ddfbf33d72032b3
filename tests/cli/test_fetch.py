"""`edgeai fetch`, and builds of what a hub has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeai.package import Store
from tests.cli.conftest import Cli
from tests.fixtures.gguf_files import tiny_llama
from tests.fixtures.hub_server import HubServer, Repository, sha256

REPO = "someone/Tiny-GGUF"
FILE = "tiny-q4_1.gguf"


@pytest.fixture
def hub(hub_server: HubServer) -> HubServer:
    hub_server.repositories[REPO] = Repository({FILE: tiny_llama().to_bytes(), "README.md": b"# Tiny"})
    return hub_server


def test_the_size_is_told_before_and_nothing_comes_with_dry_run(cli: Cli, hub: HubServer) -> None:
    result = cli("fetch", f"hub:{REPO}", "--dry-run", "--json")
    size = sum(len(data) for data in hub.repositories[REPO].files.values())
    assert result.document["missing_bytes"] == result.document["size_bytes"] == size
    assert set(result.document["files"]) == {FILE, "README.md"}
    assert f"{size / 1e6:.1f} MB to download" in result.err
    assert hub.gets(FILE) == []


def test_fetch_then_build_without_a_network(
    cli: Cli, hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = cli("fetch", f"hub:{REPO}", "--json").document
    commit = hub.repositories[REPO].commit
    assert fetched["revision"] == commit
    assert fetched["sha256"][FILE] == sha256(hub.repositories[REPO].files[FILE])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    result = cli("build", f"hub:{REPO}", "--json")
    assert result.code == 0, result.out
    assert hub.seen == []
    manifest = Store(home).get("tiny-gguf").manifest
    assert (manifest.origin.kind, manifest.origin.location, manifest.origin.revision) == ("hub", REPO, commit)
    assert manifest.licence.spdx == "Apache-2.0"
    assert "all of it is here" in cli("fetch", f"hub:{REPO}").err


def test_a_recipe_with_a_branch_of_modelscope(cli: Cli, hub: HubServer, tmp_path: Path) -> None:
    hub.repositories[REPO].branch = "master"
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'schema = 1\nname = "tiny"\n'
        '[[sources]]\nkind = "path"\npath = "not-here.gguf"\n'
        f'[[sources]]\nkind = "modelscope"\nrepo = "{REPO}"\npinned = false\nrevision = "master"\nfiles = ["{FILE}"]\n'
    )
    result = cli("fetch", recipe)
    assert Path(result.out.strip(), FILE).is_file()
    assert "master is commit c0ffee" in result.err
    assert cli("build", recipe, "--json").code == 0


def test_a_wheel_says_that_its_size_is_not_known(cli: Cli) -> None:
    result = cli("fetch", "smollm2-135m-instruct", "--dry-run", "--json")
    assert result.document["kind"] == "wheel"
    assert "not known ahead" in result.err


def test_refresh_looks_the_branch_up_anew(cli: Cli, hub: HubServer) -> None:
    cli("fetch", f"hub:{REPO}")
    hub.repositories[REPO].commit = "b" * 40
    assert "@c0ffee" in cli("fetch", f"hub:{REPO}", "--json").document["source"]
    assert cli("fetch", f"hub:{REPO}", "--refresh", "--json").document["revision"] == "b" * 40


def test_what_cannot_be_fetched(cli: Cli, hub: HubServer, tiny_gguf: Path) -> None:
    assert cli("fetch", tiny_gguf, "--json").document["error"]["type"] == "InvalidInput"
    assert "does not exist" in cli("fetch", "hub:no/such", "--json").document["error"]["message"]
    assert cli("fetch", "hub:nonsense", "--json").document["error"]["hint"].startswith("write hub:OWNER/NAME")
    assert json.loads(cli("fetch", "no-such-recipe", "--json").out)["error"]["type"] == "NotFound"
