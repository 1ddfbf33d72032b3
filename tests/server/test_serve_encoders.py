"""`edgeai serve` with several models: which ones, in which order, and a server of all of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput, NotFound
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.server.listening import listen, welcome
from edgeai.server.loading import find_packages
from edgeai.server.serve import make_server
from tests.fixtures import patience
from tests.fixtures.encoders import WIDTH, encoder_package
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package


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
    return [package.name for package in find_packages(ServerSettings(**settings))]  # type: ignore[arg-type]


def test_the_language_model_comes_first(store: Store) -> None:
    assert names() == ["tiny", "tiny-embedder", "tiny-reranker"]
    assert names(model="tiny-embedder", also=("tiny", "tiny-embedder")) == ["tiny", "tiny-embedder"]
    assert names(model="tiny-reranker") == ["tiny-reranker"]


def test_what_cannot_be_served(store: Store, packages: dict[str, Package]) -> None:
    with pytest.raises(NotFound, match="nothing"):
        names(model="tiny", also=("nothing",))
    (store.folder / "tiny").rename(store.folder / "other")
    store.install(packages["tiny"].path)
    with pytest.raises(InvalidInput, match="several models are installed"):
        names()
    with pytest.raises(InvalidInput, match="a server has one language model"):
        names(model="tiny", also=("other",))


def test_all_of_them_answer(store: Store) -> None:
    settings = ServerSettings(threads=1, kv_budget_bytes=1 << 27)
    with listen("127.0.0.1", 0) as listener:
        server = make_server(find_packages(settings), settings)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            body = {"model": "tiny-embedder", "input": "w1 w2"}
            answer = patience.post(f"{url}/v1/embeddings", json=body).json()
            assert len(answer["data"][0]["embedding"]) == WIDTH
            body = {"query": "w1", "documents": ["w2", "w3"]}
            assert len(patience.post(f"{url}/v1/rerank", json=body).json()["results"]) == 2
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            answer = patience.post(f"{url}/v1/chat/completions", json=body).json()
            assert answer["model"] == "tiny"
        finally:
            server.should_exit = True
            thread.join(timeout=PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize(("kind", "path"), [("embedding", "/v1/embeddings"), ("reranker", "/v1/rerank")])
def test_the_welcome_shows_a_request_that_fits(kind: str, path: str) -> None:
    with listen("127.0.0.1", 0) as listener:
        said = welcome(listener, "tiny", kind)  # type: ignore[arg-type]
    assert f"{path} -H" in said
    assert "browser" not in said
