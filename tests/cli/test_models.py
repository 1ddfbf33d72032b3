"""`edgeai build`, `verify` and `models`: a package from file to removal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgeai.package import Package, Store
from tests.cli.conftest import Cli


def test_build_installs_and_reports(cli: Cli, home: Path, tiny_gguf: Path) -> None:
    result = cli("build", tiny_gguf, "--json")
    assert result.code == 0
    report = result.document
    assert set(report) == {
        "package", "name", "seconds", "peak_rss_bytes", "size_bytes", "quantization", "quality", "prompt_kl", "warm",
        "warm_bytes",
    }  # fmt: skip
    assert report["name"] == "tiny"
    assert report["seconds"] > 0
    assert report["peak_rss_bytes"] > 10_000_000
    assert report["quality"]["mean_kl"] < 0.01
    package = Store(home).get("tiny", verify=True)
    assert report["package"] == str(package.path)
    assert report["size_bytes"] == package.size_bytes
    assert "convert ..." in result.err


def test_build_to_a_folder_prints_where(cli: Cli, home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    result = cli("build", tiny_gguf, "--out", tmp_path / "out")
    assert result.out == f"{tmp_path / 'out'}\n"
    Package.open(tmp_path / "out", verify=True)
    assert Store(home).names() == ()


def test_a_truncated_file_is_refused_and_nothing_is_written(cli: Cli, home: Path, tiny_gguf: Path) -> None:
    short = home.parent / "short.gguf"
    short.write_bytes(tiny_gguf.read_bytes()[:-100])
    result = cli("build", short, "--json")
    assert result.code == 1
    assert result.document["error"]["type"] == "SourceError"
    assert list(home.rglob("*")) == []


def test_an_install_without_the_build_half_says_so(cli: Cli, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = cli("build", tiny_gguf, "--json")
    assert result.code == 1
    assert result.document["error"]["hint"] == "pip install 'edgeai[build]'"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bits", "3"], "bits: Input should be greater than or equal to 4"),
        (["--bits", "4.5", "--max-size", "1MB"], "exclude each other"),
        (["--max-size", "big"], "max_size: String should match"),
        (["--scheme", "rtn"], 'scheme "rtn" needs bits'),
        (["--scheme", "source", "--max-size", "1MB"], "keeps the size"),
        (["--scheme", "gptq", "--bits", "4", "--requantize", "--calibration", "no-such.txt"], "cannot be read"),
    ],
)
def test_options_of_quantization_that_cannot_be(options: list[str], says: str, cli: Cli, tiny_gguf: Path) -> None:
    result = cli("build", tiny_gguf, *options, "--json")
    assert result.code == 1
    assert says in result.document["error"]["message"]


@pytest.mark.parametrize(
    ("options", "scheme"), [([], "source"), (["--scheme", "rtn", "--bits", "4", "--requantize"], "rtn")]
)
def test_build_says_how_weights_are_stored(options: list[str], scheme: str, cli: Cli, tiny_gguf: Path) -> None:
    assert cli("build", tiny_gguf, *options, "--json").document["quantization"]["scheme"] == scheme
    assert f"{scheme}, " in cli("build", tiny_gguf, *options).err


def test_list_shows_what_is_installed_and_what_is_damaged(cli: Cli, installed: Package) -> None:
    (model,) = cli("models", "list", "--json").document["models"]
    assert model["name"] == "tiny"
    assert model["digest"] == installed.digest
    assert model["size_bytes"] == installed.size_bytes
    assert "tiny" in cli("models", "list").out
    installed.graph.unlink()
    listed = cli("models", "list", "--json").document
    assert listed["models"] == []
    assert "model.onnx is missing" in listed["damaged"]["tiny"]
    assert "model.onnx is missing" in cli("models", "list").err


def test_path_and_remove(cli: Cli, installed: Package) -> None:
    assert cli("models", "path", "tiny").out == f"{installed.path}\n"
    assert cli("models", "remove", "tiny", "--json").document == {"removed": "tiny"}
    assert cli("models", "path", "tiny").code == 1
    assert cli("models", "remove", "tiny").code == 1
    assert "nothing is installed yet" in cli("models", "list").err


def test_verify_reads_every_byte(cli: Cli, installed: Package) -> None:
    result = cli("verify", "tiny", "--json")
    assert (result.code, result.document["ok"]) == (0, True)
    assert "all intact" in cli("verify", installed.path).out
    with installed.weights.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
        os.fsync(file.fileno())
    result = cli("verify", "tiny", "--json")
    assert result.code == 1
    assert result.document["error"]["type"] == "PackageError"
    assert "weights.bin has been changed" in result.document["error"]["message"]


def test_card_in_three_forms(cli: Cli, installed: Package) -> None:
    document = cli("card", "tiny", "--json").document
    assert document["quality"]["mean_kl"] == installed.manifest.quality.mean_kl
    assert len(document["samples"]) == 3
    page = cli("card", installed.path, "--markdown").out
    assert page.startswith("# tiny\n")
    assert "## Sample answers" in page
    text = cli("card", "tiny").out
    for words in ("mean KL", "bytes per weight", "Apache-2.0", "What is the capital of France?", "its source"):
        assert words in text
    assert cli("card", "nothing").code == 1


def test_aliases(cli: Cli, home: Path) -> None:
    cli("models", "alias", "gpt-4o-mini", "tiny")
    assert cli("models", "alias", "llama3.2:latest", "tiny:doctor", "--json").document == {
        "aliases": {"gpt-4o-mini": "tiny", "llama3.2:latest": "tiny:doctor"}
    }
    assert cli("models", "alias").out == "gpt-4o-mini -> tiny\nllama3.2:latest -> tiny:doctor\n"
    assert cli("models", "alias", "gpt-4o-mini", "--remove").out == "llama3.2:latest -> tiny:doctor\n"
    refused = cli("models", "alias", "nothing")
    assert (refused.code, "write ALIAS=MODEL" in refused.err) == (1, True)
