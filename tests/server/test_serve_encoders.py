"""`edgeai serve` with several models: which ones, in which order, and a server of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.config import ServerSettings
from edgeai.errors import NotFound
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.server.listening import listen, welcome
from edgeai.server.pool.catalog import at_start, open_catalog
from tests.fixtures import patience
from tests.fixtures.encoders import WIDTH, encoder_package
from tests.server.float_model import float_package
from tests.server.serving import serving_all


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("packages")
    made = [
        float_package(folder),
        encoder_package(folder),
        encoder_package(folder, "reranker", name="tiny-reranker"),
    ]
    return {package.name: package for package in made}


@pytest.fixture
def store(packages: dict[str, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path))
    store = Store(tmp_path)
    for package in packages.values():
        store.install(package.path)
    return store


def names(**settings: object) -> list[str]:
    return list(open_catalog(ServerSettings(**settings)).packages())  # type: ignore[arg-type]


def first(**settings: object) -> list[str]:
    given = ServerSettings(**settings)  # type: ignore[arg-type]
    return list(at_start(open_catalog(given), given))


def test_what_is_served_and_what_is_loaded_first(store: Store, packages: dict[str, Package]) -> None:
    assert names() == ["tiny", "tiny-embedder", "tiny-reranker"]
    assert first() == ["tiny", "tiny-embedder", "tiny-reranker"]
    assert names(model="tiny-embedder", also=("tiny", "tiny-embedder")) == ["tiny-embedder", "tiny"]
    assert first(model="tiny-embedder", also=("tiny", "tiny-embedder")) == ["tiny", "tiny-embedder"]
    assert first(model="tiny-reranker") == ["tiny-reranker"]
    (store.folder / "tiny").rename(store.folder / "other")
    store.install(packages["tiny"].path)
    assert first() == ["tiny-embedder", "tiny-reranker"]
    assert first(preload=("tiny",)) == ["tiny", "tiny-embedder", "tiny-reranker"]
    assert first(pin=("other",)) == ["other", "tiny-embedder", "tiny-reranker"]


def test_what_cannot_be_served(store: Store) -> None:
    with pytest.raises(NotFound, match="nothing"):
        names(model="tiny", also=("nothing",))
    with pytest.raises(NotFound, match="no model 'nothing' to load"):
        first(pin=("nothing",))


def test_all_of_them_answer(store: Store) -> None:
    settings = ServerSettings(threads=1, kv_budget_bytes=1 << 27)
    with serving_all(settings) as url:
        body = {"model": "tiny-embedder", "input": "w1 w2"}
        answer = patience.post(f"{url}/v1/embeddings", json=body).json()
        assert len(answer["data"][0]["embedding"]) == WIDTH
        body = {"query": "w1", "documents": ["w2", "w3"]}
        assert len(patience.post(f"{url}/v1/rerank", json=body).json()["results"]) == 2
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        answer = patience.post(f"{url}/v1/chat/completions", json=body).json()
        assert answer["model"] == "tiny"


@pytest.mark.parametrize(("kind", "path"), [("embedding", "/v1/embeddings"), ("reranker", "/v1/rerank")])
def test_the_welcome_shows_a_request_that_fits(kind: str, path: str) -> None:
    with listen("127.0.0.1", 0) as listener:
        said = welcome(listener, "tiny", kind)  # type: ignore[arg-type]
    assert f"{path} -H" in said
    assert "browser" not in said
