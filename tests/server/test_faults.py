"""What goes wrong around a model: clients that leave, queues that are full, engines that fail, servers that stop."""

from __future__ import annotations

import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from edgeai.errors import Overloaded
from edgeai.server import streaming
from tests.fixtures import patience
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

HELLO: Any = [{"role": "user", "content": "Hello"}]
ENDLESS = Script(text="tick " * 1000, delay=0.02, rows=1)


def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def chat_url(served: Served) -> str:
    return f"{served.url}/v1/chat/completions"


def events(response: httpx.Response) -> list[Any]:
    """The JSON documents of a stream, without its end mark."""
    lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(stream: bool) -> None:
    with serving(ScriptedModel(ENDLESS)) as served:
        body = {"messages": HELLO, "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(chat_url(served), json=body, timeout=httpx.Timeout(5, read=0.3 if not stream else 0.01))
        left = 'edgeai_http_requests_total{route="/v1/chat/completions",status="499"} 1.0'
        assert served.eventually(lambda: left in patience.get(f"{served.url}/metrics").text)
        assert served.eventually(lambda: served.model.running == 0)


def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    with serving(ScriptedModel(ENDLESS)) as served:
        with client(served).chat.completions.create(model="", messages=HELLO, stream=True) as first:
            next(iter(first))
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(chat_url(served), json={"messages": HELLO}, timeout=0.3)
            assert served.eventually(lambda: served.model.waiting == 0)
            assert served.model.running == 1
        assert served.eventually(lambda: served.model.running == 0)


def test_a_full_queue_says_when_to_come_back() -> None:
    with (
        serving(ScriptedModel(Script(text="x" * 500, delay=0.02, rows=1, queue=0))) as served,
        client(served).chat.completions.create(model="", messages=HELLO, stream=True) as running,
    ):
        next(iter(running))
        for stream in (False, True):
            refused = patience.post(chat_url(served), json={"messages": HELLO, "stream": stream})
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "7"
            assert refused.json()["error"]["code"] == "overloaded"
            with pytest.raises(openai.InternalServerError, match="queue is full"):
                client(served).chat.completions.create(model="", messages=HELLO, stream=stream)


def test_samples_wait_for_each_other_when_the_queue_is_full() -> None:
    """A request that already runs does not fail because its own samples do not fit beside each other."""
    with serving(ScriptedModel(Script(text="abc", delay=0.01, rows=2, queue=0))) as served:
        answer = client(served).chat.completions.create(model="", messages=HELLO, n=7)
    assert [choice.message.content for choice in answer.choices] == ["abc"] * 7
    assert [choice.index for choice in answer.choices] == list(range(7))


def test_samples_start_when_the_prompt_has_been_read() -> None:
    with serving(ScriptedModel(Script(text="abc", prefill=0.1))) as served:
        client(served).chat.completions.create(model="", messages=HELLO, n=3, seed=2**63 - 2)
    assert [generated > 0 for generated in served.model.generated_before] == [False, True, True]
    assert [params.seed for _, params in served.model.seen] == [2**63 - 2, 2**63 - 1, 0]


def test_a_failure_before_the_first_token_has_its_status(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ScriptedModel(Script(fail_after=0))) as served:
        for stream in (False, True):
            answer = patience.post(chat_url(served), json={"messages": HELLO, "stream": stream})
            assert answer.status_code == 500
            assert answer.json()["error"]["type"] == "server_error"
            assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_a_failure_in_the_middle_of_a_stream_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ScriptedModel(Script(text="Hello", fail_after=3))) as served:
        with patience.stream("POST", chat_url(served), json={"messages": HELLO, "stream": True}) as answer:
            assert answer.status_code == 200
            seen = events(answer)
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in seen[:-1])
        assert text == "Hel"
        assert seen[-1]["error"]["code"] == "internal_error"
        assert "secret detail" not in json.dumps(seen)
        with pytest.raises(openai.APIError, match="the server failed"):
            list(client(served).chat.completions.create(model="", messages=HELLO, stream=True))
        metrics = patience.get(f"{served.url}/metrics").text
        assert 'edgeai_http_requests_total{route="/v1/chat/completions",status="500"} 2.0' in metrics
    assert "secret detail" in caplog.text


def test_one_failed_sample_ends_the_request(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ScriptedModel(Script(text="Hello", fail_after=3, failure=Overloaded("too much")))) as served:
        answer = patience.post(chat_url(served), json={"messages": HELLO, "n": 3})
        assert answer.status_code == 503
        assert served.model.running == 0


def test_long_waits_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.05)
    with serving(ScriptedModel(Script(text="abc", prefill=0.5))) as served:
        with patience.stream("POST", chat_url(served), json={"messages": HELLO, "stream": True}) as answer:
            lines = list(answer.iter_lines())
        assert lines.count(": waiting") >= 3
        assert lines[-2] == "data: [DONE]"
        assert "".join(text_of(client(served))) == "abc"


def text_of(model: openai.OpenAI) -> list[str]:
    stream = model.chat.completions.create(model="", messages=HELLO, stream=True)
    return [event.choices[0].delta.content or "" for event in stream]


def test_a_stopping_server_finishes_what_runs() -> None:
    with ThreadPoolExecutor() as pool, serving(ScriptedModel(Script(text="x" * 50, delay=0.02))) as served:
        whole = pool.submit(patience.post, chat_url(served), json={"messages": HELLO})
        stream = pool.submit(text_of, client(served))
        assert served.eventually(lambda: served.model.running == 2)
    assert whole.result().json()["choices"][0]["message"]["content"] == "x" * 50
    assert "".join(stream.result()) == "x" * 50
    assert served.model.closed


def test_after_the_grace_period_clients_are_told() -> None:
    with ThreadPoolExecutor() as pool, serving(ScriptedModel(ENDLESS), grace=1) as served:
        stream = pool.submit(text_of, client(served))
        assert served.eventually(lambda: served.model.running == 1)
        waiting = pool.submit(patience.post, chat_url(served), json={"messages": HELLO})
        assert served.eventually(lambda: served.model.waiting == 1)
    assert waiting.result().status_code == 503
    assert waiting.result().json()["error"]["message"].startswith("the server is shutting down")
    with pytest.raises(openai.APIError, match="shutting down"):
        stream.result()
    assert served.model.running == 0


def test_slow_readers_do_not_hold_slots() -> None:
    """The engine is done with a sequence even if its client reads nothing."""
    body = json.dumps({"messages": HELLO, "stream": True, "max_tokens": 30_000}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    with serving(ScriptedModel(Script(text="x" * 20_000, rows=1))) as served, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", httpx.URL(served.url).port or 0))
        reader.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        assert served.eventually(lambda: served.model.generated > 20_000 and served.model.running == 0)
        assert len(served.server.server_state.tasks) == 1  # the answer is still being sent
        quick = patience.post(chat_url(served), json={"messages": HELLO, "max_tokens": 5})
        assert quick.json()["choices"][0]["message"]["content"] == "xxxxx"
        assert served.eventually(lambda: len(served.server.server_state.tasks) == 1)


def test_logs_have_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(ScriptedModel(Script(text="private answer"))) as served:
        patience.post(chat_url(served), json={"messages": [{"role": "user", "content": "private question"}]})
        patience.get(served.url + "/private-address")
        metrics = patience.get(served.url + "/metrics").text
    own = [record.getMessage() for record in caplog.records if record.name.startswith(("edgeai", "uvicorn"))]
    assert any(line.startswith("POST /v1/chat/completions 200") and "+15 tokens" in line for line in own)
    assert not any("private" in line for line in [*own, metrics])
