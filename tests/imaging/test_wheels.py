"""Locks of Python packages, and unpacking wheels."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound, SourceError
from edgeai.imaging.wheels import device_requirements, lock_path, read_lock, unpack_wheels

REPOSITORY = Path(__file__).parents[2]
IMAGES = REPOSITORY / "images"


@pytest.mark.parametrize("architecture", ["arm64", "amd64"])
def test_the_locks_have_what_edgeai_asks_for_and_name_no_index(architecture: str) -> None:
    path = lock_path(IMAGES, architecture)
    locked = {one.name for one in read_lock(path)}
    asked = {re.split(r"[^\w.-]", text)[0] for text in device_requirements(REPOSITORY / "pyproject.toml")}
    assert asked <= locked
    assert not locked & {"torch", "transformers", "onnx", "huggingface-hub", "pip", "setuptools"}
    assert "://" not in path.read_text()


def test_both_machines_have_the_same_versions() -> None:
    arm, pc = (
        {(one.name, one.version) for one in read_lock(lock_path(IMAGES, machine))} for machine in ("arm64", "amd64")
    )
    assert arm == pc


def test_a_line_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "wheels.lock"
    lock.write_text("# made\nnumpy==2.3.5\n")
    with pytest.raises(InvalidInput, match=r"wheels\.lock, line 2: 'numpy==2\.3\.5' is not NAME==VERSION"):
        read_lock(lock)
    with pytest.raises(NotFound):
        read_lock(tmp_path / "other.lock")


def wheel(folder: Path, name: str, members: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in members.items():
            archive.writestr(path, text)


def test_a_wheel_is_unpacked_without_scripts_and_what_is_left_out(tmp_path: Path) -> None:
    members = {
        "toy/__init__.py": "",
        "toy/tests/test_toy.py": "",
        "toy/deep/tests/data/x.bin": "",
        "toy-1.data/purelib/toy/pure.py": "",
        "toy-1.data/scripts/toy": "",
        "toy-1.dist-info/METADATA": "",
    }
    wheel(tmp_path, "toy-1-py3-none-any.whl", members)
    site = tmp_path / "site"
    unpack_wheels(tmp_path, site, ["*/tests/*"])
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert found == {"toy/__init__.py", "toy/pure.py", "toy-1.dist-info/METADATA"}


def test_a_wheel_that_would_write_elsewhere_is_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "evil-1-py3-none-any.whl", {"../../etc/passwd": "x"})
    with pytest.raises(SourceError, match="not to be trusted"):
        unpack_wheels(tmp_path, tmp_path / "site")
    assert not (tmp_path.parent / "etc").exists()
