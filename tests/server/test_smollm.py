"""The real model behind the real server, asked by the real client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from edgeai.package.package import Package
from tests.fixtures import patience
from tests.fixtures.patience import PATIENCE
from tests.server.clients import strict_async_client
from tests.server.serving import Served
from tests.server.smollm import client_of, serving_smollm

QUESTIONS = [
    "What is the capital of France?",
    "Name three fruits.",
    "Write a haiku about rain.",
    "What is 2+2?",
    "Who wrote Hamlet?",
    "Explain gravity.",
    "Say hello in Spanish.",
    "What colour is the sky?",
]


@pytest.fixture(scope="module")
def served(smollm_package: Package) -> Iterator[Served]:
    with serving_smollm(smollm_package) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def test_it_knows_something(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the chemical formula of water? Answer in one word."}]
    answer = client.chat.completions.create(model="default", messages=messages, temperature=0, max_tokens=30)
    assert "H2O" in (answer.choices[0].message.content or "").replace("₂", "2")
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_eight_chats_at_once_some_cancelled(served: Served) -> None:
    async def chat(client: openai.AsyncOpenAI, number: int) -> list[Any]:
        messages: Any = [{"role": "user", "content": QUESTIONS[number]}]
        events = []
        async with await client.chat.completions.create(
            model="default",
            messages=messages,
            temperature=0,
            max_tokens=30,
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"repetition_penalty": 1},  # else the likeliest token is not always the chosen one
        ) as stream:
            async for event in stream:
                events.append(event)
                if number in (2, 5) and len(events) == 6:
                    break
        return events

    async def together() -> list[list[Any]]:
        async with strict_async_client(served.url) as client:
            return await asyncio.gather(*(chat(client, number) for number in range(8)))

    for number, events in enumerate(asyncio.run(together())):
        if number in (2, 5):
            continue
        body, usage = events[:-1], events[-1].usage
        text = "".join(event.choices[0].delta.content or "" for event in body)
        tokens = [token for event in body if (found := event.choices[0].logprobs) for token in found.content]
        assert text.strip()
        assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == text
        assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)
        reason = body[-1].choices[0].finish_reason
        assert usage.completion_tokens == len(tokens) + (reason == "stop")
        assert reason == "stop" or usage.completion_tokens == 30
    assert served.eventually(lambda: served.model.engine.stats().running == 0)


def running(served: Served) -> float:
    """Running sequences as the metrics tell."""
    lines = patience.get(f"{served.url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("edgeai_num_requests_running{")).split()[-1])


def endless(served: Served, *, stream: bool) -> dict[str, Any]:
    """A request that ends with the context only."""
    never = {str(token): -100 for token in served.model.manifest.tokens.eos}
    return {"messages": [{"role": "user", "content": "Count to a thousand."}], "stream": stream, "logit_bias": never}


def test_a_client_that_leaves_its_stream_frees_its_slot(served: Served) -> None:
    url, body = f"{served.url}/v1/chat/completions", endless(served, stream=True)
    with httpx.Client(timeout=PATIENCE) as client, client.stream("POST", url, json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        assert running(served) == 1
    assert served.eventually(lambda: running(served) == 0)


def test_a_client_that_does_not_wait_for_the_answer_frees_its_slot(served: Served) -> None:
    address = httpx.URL(served.url)
    body = json.dumps(endless(served, stream=False))
    with contextlib.closing(http.client.HTTPConnection(address.host, address.port)) as asking:
        asking.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        assert served.eventually(lambda: running(served) == 1)
    assert served.eventually(lambda: running(served) == 0)


def check_health(served: Served, while_alive: threading.Thread) -> None:
    """/health keeps answering, and none of its answers takes a fair part of what the thread is waiting for.

    One may: a busy machine takes the processor away for a second at times. A server that blocks does so each time.
    """
    waits, begun = [], time.perf_counter()
    with httpx.Client(timeout=PATIENCE) as client:
        while while_alive.is_alive():
            started = time.perf_counter()
            assert client.get(f"{served.url}/health", timeout=PATIENCE).json()["status"] == "ok"
            waits.append(time.perf_counter() - started)
            time.sleep(0.02)
    assert len(waits) >= 10
    assert sorted(waits)[-2] < max(0.5, (time.perf_counter() - begun) / 5)


def test_health_answers_while_a_long_prompt_is_read(served: Served, client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 100}]
    answers: list[Any] = []
    reading = threading.Thread(
        target=lambda: answers.append(client.chat.completions.create(model="", messages=messages, max_tokens=1))
    )
    reading.start()
    check_health(served, reading)
    assert answers[0].usage.prompt_tokens > 1000


def test_health_answers_while_huge_prompts_are_refused(served: Served) -> None:
    """They are not encoded as a whole, which would take seconds and hundreds of megabytes each."""
    body = {"messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 50_000}]}
    answers: list[httpx.Response] = []

    def send() -> None:
        started = time.monotonic()
        while time.monotonic() < started + 2:
            answers.append(patience.post(f"{served.url}/v1/chat/completions", json=body))

    sending = threading.Thread(target=send)
    sending.start()
    check_health(served, sending)
    assert {answer.json()["error"]["code"] for answer in answers} == {"context_length_exceeded"}
