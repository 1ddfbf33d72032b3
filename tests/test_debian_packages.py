"""Debian's packages without installing them, as boot_image, check_arm and count_arm take them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.patience import PATIENCE

REPOSITORY = Path(__file__).parents[1]
AARCH64, X86_64 = 183, 62  # e_machine of ELF


def take(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "scripts" / "debian_packages.py", folder, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def machine_of(program: Path) -> int:
    return int.from_bytes(program.read_bytes()[18:20], "little")


@pytest.mark.image
def test_a_package_alone_of_another_processor_through_links(tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    done = take(tmp_path, "--alone", "hostname:arm64")
    assert done.returncode == 0, done.stderr
    assert machine_of(tmp_path / "usr/bin/hostname") == AARCH64
    assert (tmp_path / "lib").is_symlink()
    assert not list(tmp_path.rglob("libc.so.6"))
    assert {path.name for path in tmp_path.iterdir()} <= {"usr", "lib", "bin"}


@pytest.mark.image
def test_a_package_with_all_that_it_depends_on(tmp_path: Path) -> None:
    done = take(tmp_path / "new", "hostname")
    assert done.returncode == 0, done.stderr
    assert machine_of(tmp_path / "new/usr/bin/hostname") == X86_64
    assert list((tmp_path / "new").rglob("libc.so.6"))


@pytest.mark.image
def test_the_source_of_a_package(tmp_path: Path) -> None:
    done = take(tmp_path, "--source", "hostname")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("hostname_*.dsc"))
    assert list(tmp_path.glob("hostname_*.tar.*"))


@pytest.mark.image
def test_a_package_that_there_is_not(tmp_path: Path) -> None:
    done = take(tmp_path, "--alone", "no-such-package")
    assert done.returncode == 1
    assert "Unable to locate package no-such-package" in done.stderr


def test_a_machine_without_apt(tmp_path: Path) -> None:
    done = take(tmp_path / "new", "hostname", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        1, "error: this machine has no apt-get (images are built on Debian or Ubuntu)\n"
    )  # fmt: skip
