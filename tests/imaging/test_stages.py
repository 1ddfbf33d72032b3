"""Stages are made once, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeai.imaging import tree
from edgeai.imaging.stages import Stages, code_digest, tree_digest


def test_a_stage_is_made_once_for_its_inputs(tmp_path: Path) -> None:
    stages, made = Stages(tmp_path), []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("x")

    first = stages.make("wheels", {"lock": "1"}, make)
    assert stages.make("wheels", {"lock": "1"}, make) == first
    other = stages.make("wheels", {"lock": "2"}, make)
    assert other != first
    assert len(made) == 2
    assert (first / "file").read_text() == (other / "file").read_text() == "x"


def test_a_build_that_is_cut_leaves_no_stage_and_begins_it_again(tmp_path: Path) -> None:
    stages = Stages(tmp_path)

    def cut(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.make("rootfs", {}, cut)
    assert not list(tmp_path.glob("rootfs-*"))
    folder = stages.make("rootfs", {}, lambda folder: (folder / "whole").mkdir())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_what_is_done_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    stages = Stages(tmp_path, lambda step, done=0, total=0: told.append(step))
    for _ in range(2):
        stages.make("disk", {}, lambda folder: None)
    assert told == ["disk", "disk: made in 0 s", "disk: there already"]


@pytest.mark.parametrize("change", ["content", "name", "mode", "link"])
def test_a_trees_digest_tells_every_change(tmp_path: Path, change: str) -> None:
    (tmp_path / "folder").mkdir()
    file, link = tmp_path / "folder" / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to("folder")
    before = tree_digest(tmp_path)
    match change:
        case "content":
            file.write_text("y")
        case "name":
            file.rename(file.with_name("other"))
        case "mode":
            file.chmod(0o755)
        case "link":
            link.unlink()
            link.symlink_to("folder/file")
    assert tree_digest(tmp_path) != before


def test_what_is_left_out_of_a_digest_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = tree_digest(tmp_path, leave_out=("__pycache__",))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "file.pyc").write_text("x")
    assert tree_digest(tmp_path, leave_out=("__pycache__",)) == before


def test_only_names_below_the_folder_are_left_out(tmp_path: Path) -> None:
    checkout = tmp_path / "imaging" / "edgeai"  # a checkout may lie anywhere
    checkout.mkdir(parents=True)
    (checkout / "file").write_text("x")
    before = tree_digest(checkout, leave_out=("imaging",))
    (checkout / "file").write_text("y")
    assert tree_digest(checkout, leave_out=("imaging",)) != before


def test_code_is_an_input(tmp_path: Path) -> None:
    assert len(code_digest(tree)) == 64
    assert code_digest(tree) != code_digest(json)
