"""Leaks planted in a tree are found, each; what belongs there is not taken for one."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeai.errors import ValidationFailed
from edgeai.imaging import leaks
from edgeai.imaging.leaks import Machine, check_tree, find_leaks
from edgeai.imaging.tree import Tree

MACHINE = Machine(("http.mirror.example", "buildbox7", "/srv/checkout"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def clean_tree() -> Tree:
    tree = Tree()
    tree.add_file("etc/machine-id", b"uninitialized\n")
    tree.add_file("etc/hostname", b"edgeai\n")
    tree.add_file("usr/lib/edgeai/cryptography/x.py", b'MARK = "-----BEGIN PRIVATE KEY-----"\n')
    tree.add_folder("var/log")
    tree.add_folder("var/cache")
    return tree


def test_a_clean_tree_has_none() -> None:
    check_tree(clean_tree(), MACHINE, "the root")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("etc/apt/sources.list", b"deb http://packages.example/debian trixie main\n"),
        ("etc/ssh/ssh_host_ed25519_key", b"x"),
        ("etc/machine-id", b"0123456789abcdef0123456789abcdef\n"),
        ("var/lib/dbus/machine-id", b""),
        ("var/log/dpkg.log", b""),
        ("var/lib/apt/lists/trixie_InRelease", b""),
        ("var/cache/ldconfig/aux-cache", b""),
        ("var/lib/systemd/random-seed", b"1"),
        ("root/.bash_history", b""),
        ("home/edgeai/.local/share/deviceid", b"5"),
        ("etc/passwd-", b"root"),
        ("usr/share/doc/notes", b"fetched from http.mirror.example/debian"),
        ("usr/lib/edgeai/x.pyc", b"\0/srv/checkout/edgeai/x.py\0"),
        ("etc/motd", b"made on buildbox7"),
        ("etc/edgeai/key", KEY),
    ],
)
def test_each_planted_leak_is_found_by_its_path(path: str, content: bytes) -> None:
    tree = clean_tree()
    tree.add_file(path, content)
    found = list(find_leaks(tree, MACHINE))
    assert found
    assert all(leak.startswith(f"{path}: ") for leak in found)
    with pytest.raises(ValidationFailed, match="the root has something of the build machine in it"):
        check_tree(tree, MACHINE, "the root")


def test_a_word_across_two_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_CHUNK", 16)
    tree = clean_tree()
    tree.add_file("usr/x", b"0123456789buildbox7 and more of it")
    assert list(find_leaks(tree, MACHINE)) == ["usr/x: contains 'buildbox7'"]


def test_a_public_mirror_tells_nothing_and_ones_own_does() -> None:
    mirrors = [
        "http://packages.distribution.example/debian",
        "http://10.0.0.5:3142/debian",
        "http://mirror.example/debian",
    ]
    words = Machine.here(mirrors, distribution="distribution.example").words
    assert {"10.0.0.5", "mirror.example"} <= set(words)
    assert "packages.distribution.example" not in words
