"""Keys, files and bundles to carry about."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.keys import TrustStore, load_signing_key, make_key_pair
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.package import Package
from tests.package.conftest import write_package

MakeBundle = Callable[..., Path]


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that nothing compresses, the same each time."""
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    private = tmp_path_factory.mktemp("keys") / "school.pem"
    make_key_pair(private)
    return private


@pytest.fixture(scope="session")
def key(key_file: Path) -> Ed25519PrivateKey:
    return load_signing_key(key_file)


@pytest.fixture
def trust(tmp_path: Path, key_file: Path) -> TrustStore:
    """The key is trusted with everything."""
    store = TrustStore(tmp_path / "own-keys", tmp_path / "image-keys")
    store.add(key_file.with_suffix(".pub"), system=True)
    return store


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
