"""Ollama's API through the real `ollama` package, on a real server with real weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import ollama
import pytest

from edgeai.config import ServerSettings
from edgeai.package.package import Package
from edgeai.package.store import Store
from tests.fixtures import patience
from tests.fixtures.encoders import WIDTH, encoder_package
from tests.fixtures.patience import PATIENCE, eventually
from tests.server.float_model import float_package
from tests.server.serving import serving_all

MODEL = "smollm2-135m-instruct"
EXACT = "tiny"  # of float weights: the same answer always, whatever is cached
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "num_predict": 24}
NUMBER = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY},
}


@pytest.fixture(scope="module")
def url(smollm_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("ollama")
    store = Store(home)
    store.install(smollm_package.path)
    store.install(encoder_package(home / "made").path)
    store.install(float_package(home / "made", EXACT).path)
    settings = ServerSettings(
        threads=2, kv_budget_bytes=1 << 28, kv_disk_bytes=0, check="never", alias=("phi=" + MODEL,)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEAI_HOME", str(home))
        with serving_all(settings) as address:
            yield address


@pytest.fixture
def client(url: str) -> Iterator[ollama.Client]:
    with ollama.Client(host=url, timeout=PATIENCE) as made:
        yield made


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in (answer.message.content or "")
    assert (answer.model, answer.message.role, answer.done) == (MODEL, "assistant", True)
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 10
    assert 0 < answer.eval_count <= 24
    assert min(answer.total_duration, answer.load_duration, answer.eval_duration, answer.prompt_eval_duration) > 0
    parts = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
    assert parts <= answer.total_duration * 1.01
    assert datetime.fromisoformat(str(answer.created_at)).tzinfo is not None


def test_a_stream_is_the_same_answer(client: ollama.Client) -> None:
    whole = client.chat(EXACT, QUESTION, options=GREEDY)
    parts = list(client.chat(EXACT, QUESTION, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 5
    assert parts[-1].eval_count == whole.eval_count


def test_generate_and_go_on(client: ollama.Client) -> None:
    asked: Any = {"prompt": "My name is Amina. Say hello to me.", "system": "Be short.", "options": GREEDY}
    first = client.generate(MODEL, **asked)
    assert first.response
    assert len(first.context) == (first.prompt_eval_count or 0) + (first.eval_count or 0)
    second = client.generate(MODEL, "What is my name?", context=first.context, options=GREEDY)
    assert (second.prompt_eval_count or 0) > len(first.context)
    assert second.response
    parts = list(client.generate(MODEL, **asked, stream=True))
    assert "".join(part.response for part in parts)
    assert len(parts[-1].context) == parts[-1].prompt_eval_count + parts[-1].eval_count


def test_raw_prompts_are_taken_as_they_are(client: ollama.Client, url: str) -> None:
    answer = client.generate(EXACT, "The capital of France is", raw=True, options=GREEDY)
    body = {"model": EXACT, "prompt": "The capital of France is", "max_tokens": 24, "temperature": 0}
    same = patience.post(f"{url}/v1/completions", json=body).json()
    assert answer.response == same["choices"][0]["text"]
    assert answer.prompt_eval_count == same["usage"]["prompt_tokens"]


def test_options(client: ollama.Client) -> None:
    one = client.chat(EXACT, QUESTION, options={"seed": 7, "temperature": 1.5, "num_predict": 12, "top_k": 40.0})
    two = client.chat(EXACT, QUESTION, options={"seed": 7, "temperature": 1.5, "num_predict": 12, "top_k": 40})
    assert one.message.content == two.message.content
    stopped = client.chat(MODEL, QUESTION, options=GREEDY | {"stop": ["Paris"], "num_ctx": 4096, "mirostat": 1})
    assert "Paris" not in (stopped.message.content or "")
    assert stopped.done_reason == "stop"
    with pytest.raises(ollama.ResponseError, match=r"options\.temperature") as caught:
        client.chat(MODEL, QUESTION, options={"temperature": 99})
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="'top_k' must be a whole number"):
        client.chat(MODEL, QUESTION, options={"top_k": 1.5})


def test_format(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": "How many legs does a dog have?"}]
    answer = client.chat(MODEL, asked, format=NUMBER, options=GREEDY)
    assert isinstance(json.loads(answer.message.content)["answer"], int)
    streamed = client.chat(MODEL, asked, format=NUMBER, options=GREEDY, stream=True)
    assert isinstance(json.loads("".join(part.message.content for part in streamed))["answer"], int)
    generated = client.generate(MODEL, "A dog as JSON", format="json", options={"temperature": 0, "num_predict": 200})
    assert isinstance(json.loads(generated.response), dict) or generated.done_reason == "length"


def looked_up(city: str) -> list[dict[str, Any]]:
    """A question and the call that answers it, as Ollama's clients send them."""
    call = {"function": {"name": "get_weather", "arguments": {"city": city, "unit": "celsius"}}}
    return [
        {"role": "user", "content": f"What is the weather in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: ollama.Client, stream: bool) -> None:
    """A model of this size needs to have seen calls before it makes one."""
    seen = [turn for city in ("Kisumu", "Mombasa", "Eldoret") for turn in looked_up(city)]
    asked = [*seen, {"role": "user", "content": "What is the weather in Nairobi?"}]
    options = {"temperature": 0, "num_predict": 120}
    answer: Any = client.chat(MODEL, asked, tools=[WEATHER], options=options, stream=stream)
    messages = [part.message for part in answer] if stream else [answer.message]
    calls = [call for message in messages for call in message.tool_calls or ()]
    assert {call.function.name for call in calls} == {"get_weather"}
    assert all(isinstance(call.function.arguments["city"], str) for call in calls)
    assert "tool_call" not in "".join(message.content or "" for message in messages)
    history = [
        *asked,
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump() for call in calls[:1]]},
        {"role": "tool", "tool_name": "get_weather", "content": "18 degrees, sunny"},
    ]
    assert client.chat(MODEL, history, tools=[WEATHER], options=GREEDY).done


def test_embed(client: ollama.Client) -> None:
    one = client.embed("tiny-embedder", "w1 w2")
    many = client.embed("tiny-embedder", ["w1 w2", "w3"])
    assert np.shape(many.embeddings) == (2, WIDTH)
    np.testing.assert_allclose(one.embeddings[0], many.embeddings[0], atol=1e-6)
    assert many.prompt_eval_count == 7
    assert many.total_duration
    older = client.embeddings("tiny-embedder", "w1 w2")
    np.testing.assert_allclose(older.embedding, one.embeddings[0], atol=1e-6)
    long = " ".join(f"w{number}" for number in range(100))
    assert np.shape(client.embed("tiny-embedder", long).embeddings) == (1, WIDTH)
    with pytest.raises(ollama.ResponseError):
        client.embed("tiny-embedder", long, truncate=False)
    with pytest.raises(ollama.ResponseError, match="is a language model, not an embedding model"):
        client.embed(MODEL, "w1")


def test_what_there_is(client: ollama.Client, url: str) -> None:
    listed = {model.model: model for model in client.list().models}
    assert set(listed) == {MODEL, EXACT, "phi", "tiny-embedder"}
    found = listed[MODEL]
    assert found.details.parameter_size == "135M"
    assert found.size > 90_000_000
    assert found.modified_at < datetime.now(UTC)
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] > 1000
    assert "im_start" in shown.template
    assert "Apache" in shown.license
    assert client.show("tiny-embedder").capabilities == ["embedding"]
    assert tuple(map(int, patience.get(f"{url}/api/version").json()["version"].split("."))) > (0, 9, 0)


def test_loading_and_unloading(client: ollama.Client) -> None:
    def loaded() -> dict[str | None, Any]:
        return {model.model: model for model in client.ps().models}

    assert client.generate(MODEL).done_reason == "load"
    assert MODEL in loaded()
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert eventually(lambda: MODEL not in loaded())
    assert client.chat(MODEL, [], keep_alive="5m").done_reason == "load"
    here = loaded()[MODEL]
    assert 200 < (here.expires_at - datetime.now(UTC)).total_seconds() <= 300
    assert here.context_length > 1000
    assert client.chat(MODEL, QUESTION, options=GREEDY, keep_alive=-1).done
    assert (loaded()[MODEL].expires_at - datetime.now(UTC)).days > 1000


def test_names_with_tags_and_copies(client: ollama.Client) -> None:
    assert client.chat(f"{MODEL}:latest", QUESTION, options=GREEDY).model == f"{MODEL}:latest"
    client.copy(MODEL, "llama3.2:1b")
    assert client.generate("llama3.2:1b", "Hi", options=GREEDY).response
    assert "llama3.2:1b" in {model.model for model in client.list().models}
    client.delete("llama3.2:1b")
    with pytest.raises(ollama.ResponseError, match="there is no model") as caught:
        client.generate("llama3.2:1b", "Hi")
    assert caught.value.status_code == 404


def test_what_is_refused(client: ollama.Client) -> None:
    assert client.pull(MODEL).status == "success"
    assert [part.status for part in client.pull(MODEL, stream=True)] == ["success"]
    with pytest.raises(ollama.ResponseError, match="this server downloads nothing by itself"):
        client.pull("llama3.2")
    with pytest.raises(ollama.ResponseError, match="edgeai models remove"):
        client.delete(MODEL)
    with pytest.raises(ollama.ResponseError, match="nothing leaves this device"):
        client.push(MODEL)
    with pytest.raises(ollama.ResponseError, match="edgeai build"):
        client.create("mine", from_=MODEL)
    with pytest.raises(ollama.ResponseError, match="reads only text"):
        client.generate(MODEL, "What is this?", images=["aGVsbG8="])
    with pytest.raises(ollama.ResponseError, match="reads only text"):
        client.chat(MODEL, [{"role": "user", "content": "this?", "images": ["aGVsbG8="]}])
    with pytest.raises(ollama.ResponseError, match="suffix is not supported"):
        client.generate(MODEL, "def f(", suffix="return 1")
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat(MODEL, QUESTION, think=True)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/chat", {"model": "nothing", "messages": QUESTION}, 404),
        ("/api/chat", {"messages": QUESTION}, 400),
        ("/api/chat", {"model": MODEL, "messages": "hi"}, 400),
        ("/api/chat", {"model": MODEL, "messages": QUESTION, "format": "xml"}, 400),
        ("/api/chat", {"model": MODEL, "messages": [{"role": "wizard", "content": "hi"}]}, 400),
        ("/api/generate", {"model": MODEL, "prompt": "hi", "keep_alive": "soon"}, 400),
        ("/api/generate", {"model": MODEL, "prompt": "hi", "raw": True, "context": [10**9]}, 400),
        ("/api/embed", {"model": "tiny-embedder"}, 400),
        ("/api/embed", {"model": "tiny-embedder", "input": ""}, 400),
        ("/api/nowhere", {}, 404),
    ],
)
def test_errors_are_in_ollamas_shape(url: str, path: str, body: Any, status: int) -> None:
    answer = patience.post(f"{url}{path}", json=body)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


def test_the_async_client(url: str) -> None:
    async def live() -> list[str]:
        async with ollama.AsyncClient(host=url, timeout=PATIENCE) as client:

            async def ask() -> str:
                stream = await client.chat(MODEL, QUESTION, options=GREEDY, stream=True)
                return "".join([part.message.content or "" async for part in stream])

            return await asyncio.gather(*(ask() for _ in range(3)))

    assert all(asyncio.run(live()))


def test_logprobs(client: ollama.Client) -> None:
    answer = client.chat(MODEL, QUESTION, options=GREEDY | {"num_predict": 4}, logprobs=True, top_logprobs=2)
    assert len(answer.logprobs) == 4
    assert all(entry.logprob <= 0 and len(entry.top_logprobs or ()) == 2 for entry in answer.logprobs)


def test_the_page_stays_and_whoever_looks_for_ollama_finds_it(url: str) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for accept, found in ((browser, False), ("*/*", False), ("application/json", True), ("text/plain", True)):
        answer = patience.get(f"{url}/", headers={"accept": accept})
        assert (answer.status_code, answer.text == "Ollama is running") == (200, found)
    assert patience.get(f"{url}/", headers={"accept": "text/*"}).headers["content-type"].startswith("text/html")
