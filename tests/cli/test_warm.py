"""`edgeai warm` and `edgeai build --warm`."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.package import Package, Store
from tests.cli.conftest import Cli

SYSTEM = "Be brief, be kind, and answer in French, whatever the question was.\n"


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    (tmp_path / "prompt.txt").write_text(SYSTEM)
    return tmp_path / "prompt.txt"


def test_an_installed_model_is_warmed_and_cooled(cli: Cli, installed: Package, home: Path, prompt: Path) -> None:
    done = cli("warm", "tiny", "--prompt", prompt)
    assert (done.code, done.out) == (0, f"{installed.path}\n")
    (entry,) = Store(home).get("tiny", verify=True).manifest.warm
    assert entry.prompts[0] >= 64
    assert f"computed prompts: {entry.prompts[0]} tokens" in done.err
    assert cli("card", "tiny", "--json").document["warm"][0]["prompts"] == list(entry.prompts)
    assert f"{entry.prompts[0]} tokens" in cli("card", "tiny").out
    assert cli("warm", "tiny", "--remove", "--json").document["warm"] == []
    assert Store(home).get("tiny").digest == installed.digest


def test_a_build_takes_prompts_along(cli: Cli, tiny_gguf: Path, prompt: Path, tmp_path: Path) -> None:
    built = cli("build", tiny_gguf, "--out", tmp_path / "out", "--warm", prompt, "--json").document
    package = Package.open(tmp_path / "out", verify=True)
    assert built["warm"] == [package.manifest.warm[0].model_dump(mode="json")]
    assert built["warm"][0]["prompts"] == [64]
    assert built["size_bytes"] == package.size_bytes


def test_a_prompt_that_cannot_be_read_is_told_before_the_build(cli: Cli, tiny_gguf: Path, tmp_path: Path) -> None:
    failed = cli("build", tiny_gguf, "--out", tmp_path / "out", "--warm", tmp_path / "none.txt", "--json")
    assert failed.document["error"]["type"] == "InvalidInput"
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said(cli: Cli, installed: Package, prompt: Path) -> None:
    assert cli("warm", "tiny", "--json").document["error"]["type"] == "InvalidInput"
    assert cli("warm", "tiny", "--prompt", prompt, "--remove", "--json").document["error"]["type"] == "InvalidInput"
    assert cli("warm", "none", "--prompt", prompt, "--json").document["error"]["type"] == "NotFound"
