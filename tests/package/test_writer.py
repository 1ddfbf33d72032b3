"""Writing packages: nothing is visible before it is complete, and the same content gives the same bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, OutOfDisk, PackageError
from edgeai.package import Package, PackageWriter
from tests.package.conftest import CONTENT, small_manifest, write_package

Make = Callable[..., Package]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_writes_of_the_same_content_are_the_same_bytes(tmp_path: Path) -> None:
    one, other = write_package(tmp_path / "one"), write_package(tmp_path / "other")
    assert names(one.path) == sorted([*CONTENT, "manifest.json"])
    for name in names(one.path):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()


def test_nothing_is_visible_until_it_is_published(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with PackageWriter(target) as writer:
        for name, data in CONTENT.items():
            writer.write(name, [data[:3], data[3:]])
        assert not target.exists()
        package = writer.publish(small_manifest())
    assert package.path == target
    package.verify()
    assert names(target.parent) == ["target"]


def test_files_of_other_tools_are_taken_in(tmp_path: Path) -> None:
    with PackageWriter(tmp_path / "target") as writer:
        for name, data in CONTENT.items():
            (writer.folder / name).write_bytes(data)
        writer.publish(small_manifest()).verify()


def test_an_error_and_a_forgotten_publish_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), PackageWriter(tmp_path / "target") as writer:
        writer.write("model.onnx", b"graph")
        raise ValueError("broken")
    with PackageWriter(tmp_path / "target") as writer:
        writer.write("model.onnx", b"graph")
    assert names(tmp_path) == []


def test_a_package_without_a_file_that_every_package_has_is_not_published(tmp_path: Path) -> None:
    with (
        pytest.raises(PackageError, match=r"weights\.bin is not in the manifest"),
        PackageWriter(tmp_path / "target") as writer,
    ):
        writer.write("model.onnx", b"graph")
        writer.publish(small_manifest())
    assert names(tmp_path) == []


def test_a_new_version_replaces_the_old_only_when_it_is_complete(tmp_path: Path) -> None:
    old = write_package(tmp_path / "target")
    with pytest.raises(ValueError, match="broken"), PackageWriter(tmp_path / "target") as writer:
        writer.write("weights.bin", b"new")
        raise ValueError("broken")
    assert Package.open(tmp_path / "target", verify=True).digest == old.digest
    new = write_package(tmp_path / "target", weights_bin=b"new")
    assert new.weights.read_bytes() == b"new"
    assert names(tmp_path) == ["target"]


def test_what_is_no_package_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("diary")
    (tmp_path / "link").symlink_to(tmp_path)
    for target in (tmp_path, tmp_path / "precious", tmp_path / "link"):
        with pytest.raises(InvalidInput), PackageWriter(target):
            pytest.fail("the writer should have refused")
    assert names(tmp_path) == ["link", "precious"]


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    write_package(tmp_path / "target").verify()


def test_a_full_disk_of_another_tool_is_out_of_disk_too(tmp_path: Path) -> None:
    with pytest.raises(OutOfDisk, match="no room"), PackageWriter(tmp_path / "target"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../outside", "sub/file", "manifest.json", ".hidden"])
def test_names_that_reach_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError, match="is not a name"), PackageWriter(tmp_path / "target") as writer:
        writer.write(name, b"")
