"""What a machine needs for building images is told when it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound, ProgramFailed
from edgeai.imaging.stages import Stages
from edgeai.imaging.tools import make_tools, note_packages, run


def test_only_root_builds_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidInput, match="images are built by root"):
        make_tools(Stages(tmp_path))


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match=r"no apt-get \(images are built on Debian or Ubuntu\)"):
        make_tools(Stages(tmp_path))


def test_a_program_is_heard_line_by_line_and_its_last_words_are_told() -> None:
    heard: list[str] = []
    assert run(["sh", "-c", "echo one; echo two >&2"], heard=heard.append) == "one\ntwo\n"
    assert heard == ["one\n", "two\n"]
    with pytest.raises(ProgramFailed, match=r"ended with 3:\nwhy"):
        run(["sh", "-c", "echo why; exit 3"])


def test_packages_are_noted_with_their_whole_version(tmp_path: Path) -> None:
    note_packages(tmp_path, [tmp_path / "grub-common_2.12-9+deb13u4_amd64.deb", tmp_path / "apt_1%3a3.0_amd64.deb"])
    assert (tmp_path / "packages.txt").read_text() == "apt 1:3.0 amd64\ngrub-common 2.12-9+deb13u4 amd64\n"
