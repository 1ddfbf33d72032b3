"""/v1/embeddings and /v1/rerank on a real server, through the real openai client, beside a language model."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from edgeai.encoder.async_encoder import AsyncEncoder
from edgeai.encoder.encoder import Encoder
from edgeai.package.package import Package
from edgeai.server.app import create_app
from tests.fixtures import patience
from tests.fixtures.encoders import CLS, SEP, WIDTH, encoder_package, words
from tests.server.pools import pool_of
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

HELLO = [{"role": "user", "content": "hi"}]
TEXTS = [words(5), words(9, 30), words(5, 70)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    encoder_package(folder, prompts={"query": "w7 "})
    encoder_package(folder, "reranker", name="tiny-reranker")
    return folder


@pytest.fixture(scope="module")
def local(folder: Path) -> Encoder:
    return Encoder(Package.open(folder / "tiny-embedder"), threads=1)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    packages = [Package.open(folder / name) for name in ("tiny-embedder", "tiny-reranker")]
    encoders = [AsyncEncoder.load(package, threads=1) for package in packages]
    model = ScriptedModel(Script(text="hello"))
    app = create_app(pool_of(model, encoders))
    with serving(model, app=app) as running:
        yield running


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0)


def post(served: Served, path: str, **body: Any) -> httpx.Response:
    return patience.post(served.url + path, json=body)


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    found = response.json()["error"]
    return response.status_code, found["message"], found["param"]


def test_the_openai_client_gets_the_encoders_vectors(client: openai.OpenAI, local: Encoder) -> None:
    answer = client.embeddings.create(model="tiny-embedder", input=TEXTS)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    np.testing.assert_allclose([entry.embedding for entry in answer.data], local.embed(TEXTS), atol=2e-6)
    tokens = sum(len(tokens) for tokens in local.tokenizer.encode(TEXTS))
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("tiny-embedder", tokens, tokens)


def test_float_and_base64_are_the_same(client: openai.OpenAI, served: Served) -> None:
    floats = client.embeddings.create(model="tiny-embedder", input="w1 w2", encoding_format="float").data[0].embedding
    raw = post(served, "/v1/embeddings", input="w1 w2", encoding_format="base64").json()["data"][0]["embedding"]
    decoded = np.frombuffer(base64.b64decode(raw), "<f4")
    assert decoded.shape == (WIDTH,)
    np.testing.assert_allclose(floats, decoded, atol=1e-8)


@pytest.mark.parametrize(
    "form",
    ["w1 w2", ["w1 w2"], [CLS, 5, 6, SEP], [[CLS, 5, 6, SEP]], ["w1 w2", "w3"], [[CLS, 5, 6, SEP], [CLS, 7, SEP]]],
    ids=str,
)
def test_every_form_of_input(client: openai.OpenAI, local: Encoder, form: Any) -> None:
    answer = client.embeddings.create(model="tiny-embedder", input=form)
    expected = local.embed(["w1 w2", "w3"][: len(answer.data)])
    np.testing.assert_allclose([entry.embedding for entry in answer.data], expected, atol=2e-6)
    both = isinstance(form, list) and len(form) == 2
    assert len(answer.data) == (2 if both else 1)


def test_dimensions(client: openai.OpenAI, local: Encoder) -> None:
    vector = np.array(client.embeddings.create(model="tiny-embedder", input="w1", dimensions=8).data[0].embedding)
    first = local.embed(["w1"])[0, :8]
    np.testing.assert_allclose(vector, first / np.linalg.norm(first), atol=1e-6)
    with pytest.raises(
        openai.BadRequestError, match=f"dimensions is 49, but this model's vectors have {WIDTH}"
    ) as wrong:
        client.embeddings.create(model="tiny-embedder", input="w1", dimensions=49)
    assert wrong.value.param == "dimensions"


def test_input_type_chooses_the_prompt(client: openai.OpenAI, local: Encoder) -> None:
    answer = client.embeddings.create(model="tiny-embedder", input="w1", extra_body={"input_type": "search_query"})
    np.testing.assert_allclose(answer.data[0].embedding, local.embed(["w7 w1"])[0], atol=2e-6)
    with pytest.raises(openai.BadRequestError, match="no prompt 'poem'"):
        client.embeddings.create(model="tiny-embedder", input="w1", extra_body={"input_type": "poem"})


def test_what_is_too_long_is_refused_or_cut(client: openai.OpenAI, local: Encoder) -> None:
    with pytest.raises(openai.BadRequestError, match=r"input 1 has 102 tokens.*at most 32") as refused:
        client.embeddings.create(model="tiny-embedder", input=["w1", words(100)])
    assert refused.value.code == "context_length_exceeded"
    answer = client.embeddings.create(model="tiny-embedder", input=words(100), extra_body={"truncate": True})
    np.testing.assert_allclose(answer.data[0].embedding, local.embed([words(30)])[0], atol=2e-6)
    assert answer.usage.prompt_tokens == 32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "input: Field required"),
        ({"input": []}, "input: must be a string"),
        ({"input": ""}, "an input is empty"),
        ({"input": ["w1", ""]}, "an input is empty"),
        ({"input": [[]]}, "input: every prompt must be"),
        ({"input": ["w1", 5]}, "input: every prompt must be"),
        ({"input": {"text": "w1"}}, "input: must be a string"),
        ({"input": [2, 4, 999_999]}, "token 999999 is outside the 1200 tokens"),
        ({"input": ["w1"] * 2049}, "input: Value should have at most 2048 items"),
        ({"input": "w1", "encoding_format": "int8"}, "encoding_format: Input should be 'float' or 'base64'"),
        ({"input": "w1", "dimensions": 0}, "dimensions: Input should be greater than or equal to 1"),
        ({"input": "w1", "dimensions": "8"}, "dimensions: Input should be a valid integer"),
        ({"input": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_bad_embeddings_requests(served: Served, fields: dict[str, Any], message: str) -> None:
    response = patience.post(
        f"{served.url}/v1/embeddings",
        content=json.dumps(fields).encode(),
        headers={"content-type": "application/json"},
    )
    status, said, _ = error(response)
    assert status == 400
    assert message in said


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_rerank(served: Served, folder: Path, path: str) -> None:
    documents = ["w5 w6", {"text": "w9"}, "w30 w31 w32", "w5 w6"]
    answer = post(served, path, model="tiny-reranker", query="w1", documents=documents, return_documents=True).json()
    scores = Encoder(Package.open(folder / "tiny-reranker"), threads=1).rerank(
        "w1", ["w5 w6", "w9", "w30 w31 w32", "w5 w6"]
    )
    results = answer["results"]
    assert [entry["index"] for entry in results] == np.argsort(-scores, kind="stable").tolist()
    for entry in results:
        assert entry["relevance_score"] == pytest.approx(float(scores[entry["index"]]), abs=1e-6)
        assert entry["document"]["text"] == ["w5 w6", "w9", "w30 w31 w32", "w5 w6"][entry["index"]]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == sum([6, 5, 7, 6])


def test_rerank_top_and_long_documents(served: Served) -> None:
    answer = post(served, "/v1/rerank", query="w1", documents=["w2", words(200), "w3"], top_n=2).json()
    assert len(answer["results"]) == 2
    assert "document" not in answer["results"][0]
    assert post(served, "/v1/rerank", query="w1", documents=["w2"], top_n=9).json()["results"][0]["index"] == 0
    status, said, _ = error(post(served, "/v1/rerank", query="w1", documents=["w2", words(200)], truncate=False))
    assert (status, "document 1 with its query has 204 tokens" in said) == (400, True)
    status, said, param = error(post(served, "/v1/rerank", query=words(40), documents=["w2"]))
    assert (status, param, "the query has 40 tokens" in said) == (400, "query", True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"documents": ["w1"]}, "query: Field required"),
        ({"query": "", "documents": ["w1"]}, "query: String should have at least 1 character"),
        ({"query": "w1"}, "documents: Field required"),
        ({"query": "w1", "documents": []}, "documents: List should have at least 1 item"),
        (
            {"query": "w1", "documents": [{"title": "w2"}]},
            "documents[0]: a document is a string",
        ),
        ({"query": "w1", "documents": ["w2"], "top_n": 0}, "top_n: Input should be greater"),
        ({"query": "w1", "documents": "w2"}, "documents: Input should be a valid list"),
    ],
)
def test_bad_rerank_requests(served: Served, fields: dict[str, Any], message: str) -> None:
    status, said, _ = error(post(served, "/v1/rerank", **fields))
    assert status == 400
    assert message in said


@pytest.mark.parametrize(
    ("path", "model", "status", "message"),
    [
        (
            "/v1/embeddings",
            "tiny-reranker",
            400,
            "tiny-reranker is a reranker, not an embedding model (ask it at",
        ),
        ("/v1/embeddings", "scripted", 400, "scripted is a language model, not an embedding model"),
        ("/v1/embeddings", "nothing", 404, "there is no model 'nothing' (there is"),
        ("/v1/rerank", "tiny-embedder", 400, "tiny-embedder is an embedding model, not a reranker"),
        ("/v1/rerank", "nothing", 404, "there is no model 'nothing'"),
        ("/v1/chat/completions", "tiny-embedder", 400, "tiny-embedder is an embedding model, not a language model"),
        ("/v1/completions", "tiny-reranker", 400, "tiny-reranker is a reranker, not a language model"),
    ],
)
def test_models_of_the_wrong_kind(served: Served, path: str, model: str, status: int, message: str) -> None:
    if model == "scripted":
        model = served.model.name
        message = message.replace("scripted", model)
    body = {"/v1/embeddings": {"input": "w1"}, "/v1/rerank": {"query": "w1", "documents": ["w2"]}}
    body |= {
        "/v1/chat/completions": {"messages": HELLO},
        "/v1/completions": {"prompt": "hi"},
    }
    found, said, param = error(post(served, path, model=model, **body[path]))
    assert (found, param) == (status, "model")
    assert message in said


def test_a_server_without_encoders_says_so() -> None:
    with serving(ScriptedModel(Script(text="hello"))) as served:
        status, said, _ = error(post(served, "/v1/embeddings", input="w1"))
        assert (status, "this server has no embedding model" in said) == (404, True)


def test_a_server_with_encoders_only(folder: Path) -> None:
    encoder = AsyncEncoder.load(Package.open(folder / "tiny-embedder"), threads=1)
    with serving(None, app=create_app(pool_of(None, [encoder]))) as served:
        assert post(served, "/v1/embeddings", input="w1").status_code == 200
        status, said, _ = error(post(served, "/v1/chat/completions", messages=HELLO))
        assert (status, "this server has no language model" in said) == (404, True)


def test_models_health_and_metrics_know_them(served: Served, client: openai.OpenAI) -> None:
    client.embeddings.create(model="tiny-embedder", input=["w1", "w2 w3"])
    listed = {model["id"]: model for model in patience.get(f"{served.url}/v1/models").json()["data"]}
    assert {name: model["kind"] for name, model in listed.items()} == {
        "tiny-embedder": "embedding", "tiny-reranker": "reranker", served.model.name: "decoder",
    }  # fmt: skip
    assert listed["tiny-embedder"]["max_model_len"] == 32
    assert client.models.retrieve("tiny-reranker").id == "tiny-reranker"
    assert set(patience.get(f"{served.url}/health").json()["models"]) == set(listed)
    metrics = patience.get(f"{served.url}/metrics").text
    assert 'edgeai_encoder_requests_total{model_name="tiny-embedder"}' in metrics
    assert 'edgeai_encoder_requests_waiting{model_name="tiny-reranker"} 0.0' in metrics
    assert 'edgeai_http_requests_total{route="/v1/embeddings",status="200"}' in metrics


def test_many_clients_at_once(client: openai.OpenAI, local: Encoder) -> None:
    inputs = [[words(count % 20 + 1, count)] * (count % 3 + 1) for count in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda texts: client.embeddings.create(model="tiny-embedder", input=texts), inputs))
    for texts, answer in zip(inputs, answers, strict=True):
        np.testing.assert_allclose([entry.embedding for entry in answer.data], local.embed(texts), atol=2e-6)


def test_the_language_model_still_answers(served: Served) -> None:
    answer = post(served, "/v1/chat/completions", messages=HELLO).json()
    assert answer["choices"][0]["message"]["content"] == "hello"
