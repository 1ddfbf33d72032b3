"""Root writes into others' folders as their owners."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeai.package.ownership import as_owner_of

OWNER = 65533


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_what_root_writes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    os.chown(folder, OWNER, OWNER)
    for ancestor in (tmp_path, *tmp_path.parents[:-2]):
        ancestor.chmod(0o755)
    with pytest.raises(PermissionError), as_owner_of(folder):
        (folder / "model").touch()
        (tmp_path / "elsewhere").touch()
    assert (folder / "model").stat().st_uid == (folder / "model").stat().st_gid == OWNER
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_in_ones_own_folder_nothing_changes(tmp_path: Path) -> None:
    with as_owner_of(tmp_path), as_owner_of(tmp_path / "none"):
        (tmp_path / "model").touch()
    assert (tmp_path / "model").stat().st_uid == os.geteuid()
