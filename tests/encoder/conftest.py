"""Tiny encoders, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.encoder.encoder import Encoder
from tests.fixtures.encoders import encoder_package


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="session")
def exact(encoder_folder: Path) -> Encoder:
    """Float weights, mean pooling, normalized."""
    return Encoder(encoder_package(encoder_folder, name="exact", exact=True), threads=1)


@pytest.fixture(scope="session")
def embedder(encoder_folder: Path) -> Encoder:
    """The same in int8."""
    return Encoder(encoder_package(encoder_folder), threads=1)


@pytest.fixture(scope="session")
def reranker(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_package(encoder_folder, "reranker", name="tiny-reranker", exact=True), threads=1)
