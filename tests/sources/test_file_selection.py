"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest

from edgeai.errors import SourceError
from edgeai.sources.file_selection import select
from edgeai.sources.http_download import RemoteFile


def names(listed: list[str], *patterns: str) -> list[str]:
    files = [RemoteFile(name, 1, "0" * 64) for name in listed]
    return [file.name for file in select(files, patterns, "a/b")]


SHARDED = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin", "flax.msgpack", "onnx/model.onnx"], 2),
        (["config.json", *SHARDED, "consolidated.safetensors", "params.json"], 4),
        (["config.json", "weights.safetensors", "consolidated.safetensors", "adapter_model.safetensors"], 2),
        (["config.json", "model.safetensors", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"], 6),
        (["config.json", "model.safetensors", "LICENSE", "LICENSE.txt", "README.md", "NOTICE"], 6),
        (["config.json", "model.safetensors", "model.gguf", ".gitattributes", "figures/loss.png"], 2),
    ],
)
def test_the_first_files_listed_are_what_a_build_needs(listed: list[str], taken: int) -> None:
    assert set(names(listed)) == {*listed[:taken]}


def test_the_only_gguf_model_whole_or_split() -> None:
    assert names(["README.md", "m.gguf", "config.json", "x.imatrix"]) == ["README.md", "m.gguf"]
    split = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert names(split) == split


def test_several_gguf_models_are_a_choice_for_the_user() -> None:
    with pytest.raises(SourceError, match=r"2 GGUF models: m-Q4\.gguf, m-Q8\.gguf") as raised:
        names(["m-Q4.gguf", "m-Q8.gguf"])
    assert "@REVISION:FILE" in raised.value.hint
    assert names(["m-Q4.gguf", "m-Q8.gguf"], "*Q8*") == ["m-Q8.gguf"]


def test_pickle_files_never_come() -> None:
    with pytest.raises(SourceError, match="only as pickle files"):
        names(["config.json", "pytorch_model.bin"])
    with pytest.raises(SourceError, match=r"pytorch_model\.bin is a pickle file"):
        names(["config.json", "pytorch_model.bin"], "pytorch_model.bin")
    assert names(["model.safetensors", "model.bin"], "model.*") == ["model.safetensors"]


def test_patterns_without_a_file_are_named() -> None:
    with pytest.raises(SourceError, match=r"has no file 'model\.gguf'") as raised:
        names(["other.gguf"], "model.gguf")
    assert "other.gguf" in raised.value.hint


def test_repositories_of_something_else() -> None:
    with pytest.raises(SourceError, match="neither safetensors"):
        names(["model.safetensors"])  # without a configuration it is no checkpoint
    with pytest.raises(SourceError, match="neither safetensors"):
        names([])


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a\\b", "a/", "a\0b", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="lists a file called"):
        names(["config.json", name], "config.json")
