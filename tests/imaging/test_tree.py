"""Roots put together as tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgeai.imaging.tree import Tree, clean


def written(tree: Tree, path: Path, epoch: int = 1_000_000_000) -> dict[str, tarfile.TarInfo]:
    tree.write(path, epoch)
    with tarfile.open(path) as tar:
        return {info.name: info for info in tar}


def test_entries_come_back_with_owner_mode_and_one_date(tmp_path: Path) -> None:
    tree = Tree()
    tree.add_file("/usr/bin/edgeai", b"#!/bin/sh\n", mode=0o755)
    tree.add_folder("data/edgeai", mode=0o750, owner=(990, 990))
    tree.add_link("etc/resolv.conf", "/run/resolv.conf")
    found = written(tree, tmp_path / "root.tar")
    assert list(found) == ["data", "data/edgeai", "etc", "etc/resolv.conf", "usr", "usr/bin", "usr/bin/edgeai"]
    assert {info.mtime for info in found.values()} == {1_000_000_000}
    assert (found["data/edgeai"].uid, found["data/edgeai"].mode) == (990, 0o750)
    assert (found["usr/bin/edgeai"].mode, found["usr/bin/edgeai"].size) == (0o755, 10)
    assert found["etc/resolv.conf"].linkname == "/run/resolv.conf"
    tree.write(tmp_path / "root.tar", 0, top=True)
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert (tar.next().name, tar.getmembers()[0].mode) == (".", 0o755)  # type: ignore[union-attr]


def test_a_file_below_a_link_lies_where_the_link_points() -> None:
    tree = Tree()
    tree.add_link("lib", "usr/lib")
    tree.add_link("usr/lib64", "lib")
    tree.add_file("lib/systemd/system/x.service", b"x")
    tree.add_file("usr/lib64/y", b"y")
    assert "usr/lib/systemd/system/x.service" in tree
    assert "usr/lib/y" in tree
    assert tree.entries["lib"].info.issym()


def test_a_tar_is_read_changed_and_written_with_its_contents(tmp_path: Path) -> None:
    first = tmp_path / "first.tar"
    with tarfile.open(first, "w", format=tarfile.PAX_FORMAT) as tar:
        file = tarfile.TarInfo("./bin/perl")
        file.size, file.uname, file.pax_headers = 4, "builder", {"SCHILY.xattr.security.capability": "cap"}
        tar.addfile(file, io.BytesIO(b"perl"))
        link = tarfile.TarInfo("./abc")  # sorted before what it links to
        link.type, link.linkname = tarfile.LNKTYPE, "./bin/perl"
        tar.addfile(link)
    tree = Tree.from_tar(first)
    tree.add_file("etc/hostname", b"edgeai\n")
    found = written(tree, tmp_path / "second.tar")
    assert list(found)[-1] == "abc"
    assert found["abc"].linkname == "bin/perl"
    assert found["bin/perl"].uname == ""
    assert found["bin/perl"].pax_headers["SCHILY.xattr.security.capability"] == "cap"
    with tarfile.open(tmp_path / "second.tar") as tar:
        assert tar.extractfile("bin/perl").read() == tar.extractfile("abc").read() == b"perl"  # type: ignore[union-attr]


def test_the_order_of_additions_does_not_matter(tmp_path: Path) -> None:
    names = ["b/2", "a/1", "b/1"]
    for number, order in enumerate((names, sorted(names))):
        tree = Tree()
        for name in order:
            tree.add_file(name, name.encode())
        tree.write(tmp_path / f"{number}.tar", 0)
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_removing_takes_all_that_is_inside_and_nothing_beside() -> None:
    tree = Tree()
    for name in ("var/log/a", "var/log/b/c", "var/logs"):
        tree.add_file(name, b"")
    tree.remove("var/log")
    assert set(tree.entries) == {"var", "var/logs"}


def test_what_was_linked_to_something_removed_keeps_its_contents(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "first.tar", "w") as tar:
        file = tarfile.TarInfo("./boot/vmlinuz")
        file.size = 6
        tar.addfile(file, io.BytesIO(b"kernel"))
        for name in ("./usr/one", "./usr/two"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, "./boot/vmlinuz"
            tar.addfile(link)
    tree = Tree.from_tar(tmp_path / "first.tar")
    tree.remove("boot")
    found = written(tree, tmp_path / "second.tar")
    assert list(found) == ["usr/one", "usr/two"]
    assert (found["usr/one"].size, found["usr/two"].linkname) == (6, "usr/one")


def test_a_folder_of_this_machine_is_copied_with_links_and_what_can_be_executed(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "run").write_text("x")
    (tmp_path / "usr" / "run").chmod(0o700)
    (tmp_path / "usr" / "link").symlink_to("run")
    tree = Tree()
    tree.add_tree(tmp_path)
    assert tree.entries["usr/run"].info.mode == 0o755
    assert tree.entries["usr/link"].info.linkname == "run"


@pytest.mark.parametrize(("path", "expected"), [("./a//b/", "a/b"), ("/a/../b", "b"), ("../..", ""), ("/", "")])
def test_paths_are_cleaned(path: str, expected: str) -> None:
    assert clean(path) == expected
