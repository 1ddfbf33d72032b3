"""Bundles and packages to carry about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.writer import Contents, write_bundle
from edgeai.package import Package
from tests.package.conftest import write_package

MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path, key: Ed25519PrivateKey) -> MakeBundle:
    """Writes files by name and content into a system bundle."""

    def make(files: dict[str, bytes], name: str = "made.bundle", **options: object) -> Path:
        folder = tmp_path / "contents" / name
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        given = {"kind": "system", "name": "made", "metadata": {"board": "pi4"}} | options
        contents = Contents(files={file: folder / file for file in files}, **given)  # type: ignore[arg-type]
        write_bundle(tmp_path / name, contents, [key])
        return tmp_path / name

    return make


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    def make(name: str = "small", **content: bytes) -> Package:
        return write_package(tmp_path / "made" / name, name, **content)

    return make
