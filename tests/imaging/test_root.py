"""Roots: what installing packages left behind is gone, and what a board needs is there."""

from __future__ import annotations

import pytest

from edgeai.errors import InvalidInput
from edgeai.imaging.leaks import Machine, find_leaks
from edgeai.imaging.plan import make_plan
from edgeai.imaging.root import enable, remove_leftovers, settle
from edgeai.imaging.tree import Tree
from tests.fixtures.images import IMAGES, small_root

PLAN = make_plan(IMAGES, "pi4")


def test_what_installing_left_behind_is_taken_out() -> None:
    tree = small_root(PLAN)
    assert len(list(find_leaks(tree, Machine(())))) > 8
    remove_leftovers(tree)
    assert list(find_leaks(tree, Machine(()))) == []
    assert not [path for path in tree.entries if path.endswith(".pyc") or path.startswith("boot/vmlinuz")]
    assert tree.entries["tmp"].info.mode == 0o1777
    assert {"run", "dev", "data", "boot/firmware"} <= tree.entries.keys()
    assert "var/lib/dpkg/status" in tree  # what is installed stays known


def unit(install: str) -> Tree:
    tree = Tree()
    tree.add_file("usr/lib/systemd/system/x.service", f"[Service]\nExecStart=a\nExecStart=b\n{install}".encode())
    tree.add_file("usr/lib/systemd/system/getty@.service", b"[Install]\nWantedBy=getty.target\n")
    return tree


def links(tree: Tree) -> dict[str, str]:
    return {
        path.removeprefix("etc/systemd/system/"): entry.info.linkname
        for path, entry in tree.entries.items()
        if entry.info.issym()
    }


def test_a_unit_is_enabled_where_it_says() -> None:
    tree = unit("[Install]\nWantedBy=multi-user.target other.target\nRequiredBy=network.target\nAlias=y.service\n")
    enable(tree, "x.service")
    assert links(tree) == dict.fromkeys(
        [
            "multi-user.target.wants/x.service",
            "other.target.wants/x.service",
            "network.target.requires/x.service",
            "y.service",
        ],
        "/usr/lib/systemd/system/x.service",
    )


def test_an_instance_is_a_link_to_its_template() -> None:
    tree = unit("")
    enable(tree, "getty@tty1.service")
    assert links(tree) == {"getty.target.wants/getty@tty1.service": "/usr/lib/systemd/system/getty@.service"}


def test_a_unit_that_cannot_be_enabled_is_refused() -> None:
    with pytest.raises(InvalidInput, match="there is no unit z"):
        enable(unit(""), "z.service")
    with pytest.raises(InvalidInput, match=r"x\.service has no \[Install\] section"):
        enable(unit(""), "x.service")


def test_the_servers_user_shares_its_id_with_nobody() -> None:
    tree = small_root(PLAN)
    settle(PLAN, tree)
    user = PLAN.base.user
    assert f"\n{user.name}:x:{user.id}:{user.id}:" in tree.entries["etc/passwd"].read().decode()
    with pytest.raises(InvalidInput, match=f"user id {user.id} is taken in etc/passwd"):
        settle(PLAN, tree)
