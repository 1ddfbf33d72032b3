"""`edgeai embed` and `edgeai rerank`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edgeai.package import Package, Store
from tests.cli.conftest import Cli
from tests.fixtures.encoders import WIDTH, encoder_package, words


@pytest.fixture
def embedder(home: Path, tmp_path: Path) -> Package:
    return Store(home).install(encoder_package(tmp_path, prompts={"query": "w7 "}).path)


@pytest.fixture
def reranker(home: Path, tmp_path: Path) -> Package:
    return Store(home).install(encoder_package(tmp_path, "reranker", name="tiny-reranker").path)


def test_embed_prints_vectors(cli: Cli, embedder: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    document = cli("embed", "tiny-embedder", "w1 w2", "w3").document
    vectors = np.array(document["embeddings"])
    assert (document["model"], document["dimensions"], vectors.shape) == ("tiny-embedder", WIDTH, (2, WIDTH))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2\n\nw3\n"))
    np.testing.assert_allclose(cli("embed", "tiny-embedder", "-").document["embeddings"], vectors, atol=1e-6)
    short = cli("embed", "tiny-embedder", "w1 w2", "--dimensions", "8").document
    assert (short["dimensions"], len(short["embeddings"][0])) == (8, 8)


def test_embed_with_a_prompt(cli: Cli, embedder: Package) -> None:
    as_query = cli("embed", "tiny-embedder", "w1", "--input-type", "query").document["embeddings"]
    assert as_query == cli("embed", "tiny-embedder", "w7 w1").document["embeddings"]
    refused = cli("embed", "tiny-embedder", "w1", "--input-type", "poem")
    assert (refused.code, refused.out) == (1, "")
    assert "no prompt 'poem'" in refused.err


def test_embed_of_a_long_text(cli: Cli, embedder: Package) -> None:
    refused = cli("embed", "tiny-embedder", words(100))
    assert refused.code == 1
    assert "has 102 tokens, but this model reads at most 32" in refused.err
    assert cli("embed", "tiny-embedder", words(100), "--truncate").code == 0


def test_rerank_sorts(cli: Cli, reranker: Package) -> None:
    documents = ["w5 w6", "w9", "w30 w31 w32"]
    results = cli("rerank", "tiny-reranker", "w1", *documents, "--json").document["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    assert all(result["document"] == documents[result["index"]] for result in results)
    best = cli("rerank", "tiny-reranker", "w1", *documents, "--top", "1").out
    assert best == f"{scores[0]:.4f}  {results[0]['document']}\n"


def test_models_of_other_kinds(cli: Cli, embedder: Package, reranker: Package, installed: Package) -> None:
    for command, name, what in [
        (["embed"], "tiny-reranker", "is a reranker, not an embedding model"),
        (["embed"], "tiny", "is a language model"),
        (["rerank", "tiny-embedder"], "w1", "is an embedding model, not a reranker"),
        (["run"], "tiny-embedder", "is an embedding model: it writes no text"),
        (["chat"], "tiny-reranker", "is a reranker: it writes no text"),
        (["bench"], "tiny-embedder", "it writes no text"),
    ]:
        texts = [] if command in (["chat"], ["bench"]) else ["w2"]
        refused = cli(*command, name, *texts)
        assert refused.code == 1, (command, name)
        assert what in refused.err


def test_models_list_says_the_kind(cli: Cli, embedder: Package, reranker: Package, installed: Package) -> None:
    models = cli("models", "list", "--json").document["models"]
    assert {model["name"]: model["kind"] for model in models} == {
        "tiny": "decoder",
        "tiny-embedder": "embedding",
        "tiny-reranker": "reranker",
    }
    assert models[1]["quality"]["mean_cosine"] == 1
    assert "reranker" in cli("models", "list").out
