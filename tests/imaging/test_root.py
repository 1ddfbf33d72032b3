"""Roots: what installing packages left behind is gone, and what a board needs is there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput
from edgeai.imaging.leaks import Machine, find_leaks
from edgeai.imaging.plan import make_plan
from edgeai.imaging.root import PROGRAM, enable, remove_leftovers, settle
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


@pytest.mark.parametrize(("command", "given", "board"), [
    ("status", None, "http://127.0.0.1"),
    ("ask", None, "http://127.0.0.1"),
    ("status", "clinic", "clinic"),
    ("import", None, "none"),  # a file that is missing is no model of this board's
    ("serve", None, "none"),
])  # fmt: skip
def test_commands_for_people_find_the_cards_server(tmp_path: Path, command: str, given: str | None, board: str) -> None:
    (tmp_path / "edgeai").write_text(PROGRAM)
    for name, script in (
        ("python3", 'echo "${EDGEAI_BOARD-none}"'),
        ("setpriv", 'while [ "$1" != python3 ]; do shift; done; exec "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"EDGEAI_BOARD": given} if given else {})
    said = subprocess.run(
        ["sh", tmp_path / "edgeai", command], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout == f"{board}\n"
