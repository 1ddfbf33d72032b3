"""Answers through the real `openai` client, exactly: a float model says the same whatever else is running."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import httpx
import openai
import pytest

from edgeai.engine.config import EngineSettings
from edgeai.model import AsyncModel
from tests.fixtures import patience
from tests.server.clients import lenient, strict_async_client, strict_client
from tests.server.float_model import CONTEXT, float_package
from tests.server.serving import Served, serving

QUESTIONS = [f"Question number {number}, {'please ' * number}" for number in range(8)]
EOS = 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    package = float_package(tmp_path_factory.mktemp("tiny"))
    with serving(AsyncModel.load(package, EngineSettings(threads=1, max_rows=8, kv_budget_bytes=1 << 27))) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with strict_client(served.url) as made:
        yield made


def ask(client: openai.OpenAI, question: str, **fields: Any) -> Any:
    given = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 40} | fields
    return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": question}], **given)


def complete(client: openai.OpenAI, prompt: Any, **fields: Any) -> Any:
    given = {"temperature": 0, "max_tokens": 20} | fields
    asked = lenient(client) if fields.get("stream") else client
    return asked.completions.create(model="tiny", prompt=prompt, **given)


async def stream(client: openai.AsyncOpenAI, question: str, *, leave_after: int | None = None, **fields: Any) -> str:
    """The text of one streamed chat, or of its first events."""
    given = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 40} | fields
    messages: Any = [{"role": "user", "content": question}]
    pieces: list[str] = []
    async with await client.chat.completions.create(model="tiny", messages=messages, stream=True, **given) as events:
        async for event in events:
            pieces.append(event.choices[0].delta.content or "")
            if len(pieces) == leave_after:
                break
    return "".join(pieces)


def test_eight_streams_at_once_some_cancelled(served: Served, client: openai.OpenAI) -> None:
    """Those that stay say exactly what they say alone, in whatever company."""
    alone = [ask(client, question, seed=number).choices[0].message.content for number, question in enumerate(QUESTIONS)]

    async def together() -> list[str]:
        async with strict_async_client(served.url) as many:
            streams = (
                stream(many, question, seed=number, leave_after=5 if number % 3 == 0 else None)
                for number, question in enumerate(QUESTIONS)
            )
            return await asyncio.gather(*streams)

    for number, (text, expected) in enumerate(zip(asyncio.run(together()), alone, strict=True)):
        assert expected.startswith(text) if number % 3 == 0 else text == expected
    assert served.eventually(lambda: served.model.engine.stats().running == 0)


def test_chunks_of_a_stream(client: openai.OpenAI) -> None:
    whole = ask(client, "Hello", seed=5)
    events = list(ask(client, "Hello", seed=5, stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in events[:-1]) == whole.choices[0].message.content
    reasons = [event.choices[0].finish_reason for event in events[:-1]]
    assert reasons == [None] * (len(events) - 2) + [whole.choices[0].finish_reason]
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(event.usage is None for event in events[:-1])
    assert {event.id for event in events} == {events[0].id}
    assert {event.object for event in events} == {"chat.completion.chunk"}
    assert events[0].system_fingerprint == whole.system_fingerprint


def test_streams_without_include_usage_have_no_usage(client: openai.OpenAI) -> None:
    assert all(event.usage is None and event.choices for event in ask(client, "Hello", stream=True, max_tokens=3))


def test_seeds_make_answers_reproducible(client: openai.OpenAI) -> None:
    texts = [ask(client, "Hello", seed=seed).choices[0].message.content for seed in (1, 1, 2, -1, -1)]
    assert texts[0] == texts[1]
    assert texts[3] == texts[4]
    assert len(set(texts)) == 3
    drawn = {ask(client, "Hello").choices[0].message.content for _ in range(3)}
    assert len(drawn) == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_samples_are_those_of_the_seeds_that_follow(client: openai.OpenAI, streamed: bool) -> None:
    expected = [ask(client, QUESTIONS[7], seed=7 + number) for number in range(10)]
    texts = [answer.choices[0].message.content for answer in expected]
    together = ask(client, QUESTIONS[7], seed=7, n=10, stream=streamed)
    if streamed:
        got = [""] * 10
        for event in together:
            got[event.choices[0].index] += event.choices[0].delta.content or ""
        assert got == texts
    else:
        assert [choice.message.content for choice in together.choices] == texts
        assert [choice.index for choice in together.choices] == list(range(10))
        assert together.usage.prompt_tokens == expected[0].usage.prompt_tokens
        assert together.usage.completion_tokens == sum(answer.usage.completion_tokens for answer in expected)


def _readable_start(client: openai.OpenAI) -> tuple[str, Any]:
    """A prompt whose continuation begins with four tokens that are whole characters, and that continuation."""
    for number in range(100):
        choice = complete(client, f"hello {number}", logprobs=0).choices[0]
        if choice.text.startswith("".join(choice.logprobs.tokens[:4])):
            return f"hello {number}", choice
    raise AssertionError("the model writes nothing readable")


def test_stop_strings_across_the_borders_of_tokens(client: openai.OpenAI) -> None:
    prompt, plain = _readable_start(client)
    tokens, text = plain.logprobs.tokens, plain.text
    border = len("".join(tokens[:3]))
    stop = text[border - 1 : border + 1]
    cut = text.index(stop)
    for given in (stop, ["never said", stop]):
        answer = complete(client, prompt, stop=given, logprobs=0)
        assert answer.choices[0].text == text[:cut]
        assert answer.choices[0].finish_reason == "stop"
        assert "".join(answer.choices[0].logprobs.tokens).startswith(text[:cut])
        assert len(answer.choices[0].logprobs.tokens) < answer.usage.completion_tokens
    events = list(complete(client, prompt, stop=stop, stream=True))
    assert "".join(event.choices[0].text for event in events) == text[:cut]
    assert events[-1].choices[0].finish_reason == "stop"


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = ask(client, "Hello", temperature=0, logprobs=True, top_logprobs=4)
    content = answer.choices[0].logprobs.content
    shown = b"".join(bytes(token.bytes) for token in content if not token.token.startswith("<|"))
    assert shown.decode(errors="replace") == answer.choices[0].message.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob
        assert 0 < sum(math.exp(entry.logprob) for entry in token.top_logprobs) <= 1 + 1e-6
        assert bytes(token.bytes).decode(errors="backslashreplace") == token.token
    events = ask(client, "Hello", temperature=0, logprobs=True, top_logprobs=4, stream=True)
    streamed = [token for event in events for token in (event.choices[0].logprobs or _nothing()).content]
    assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in content], abs=1e-4)
    assert [token.token for token in streamed] == [token.token for token in content]


def _nothing() -> Any:
    return type("Nothing", (), {"content": []})


def test_logprobs_leave_out_the_end_token(client: openai.OpenAI) -> None:
    answer = ask(client, "Hello", logprobs=True, logit_bias={str(EOS): 100})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == ""
    assert answer.choices[0].logprobs.content == []
    assert answer.usage.completion_tokens == 1


def test_completion_logprobs(client: openai.OpenAI) -> None:
    answer = complete(client, "hello", temperature=1.0, seed=3, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 20
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:number])) for number in range(20)]
    for token, own, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert top[token] == own
        assert 2 <= len(top) <= 3
    events = complete(client, "hello", temperature=1.0, seed=3, logprobs=2, stream=True)
    pieces = [event.choices[0].logprobs for event in events]
    assert [offset for piece in pieces for offset in piece.text_offset] == logprobs.text_offset


def test_many_prompts_with_many_samples(client: openai.OpenAI) -> None:
    prompts = ["hello", "12 12", "im hell"]
    answer = complete(client, prompts, n=2, seed=1, temperature=1.0)
    expected = [
        complete(client, prompt, seed=seed, temperature=1.0).choices[0].text for prompt in prompts for seed in (1, 2)
    ]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_prompts_as_token_ids(client: openai.OpenAI, served: Served) -> None:
    text = complete(client, "hello 12").choices[0].text
    ids = served.model.encode_text("hello 12")
    assert complete(client, ids).choices[0].text == text
    assert [choice.text for choice in complete(client, [ids, ids]).choices] == [text, text]


def test_echo_puts_the_prompt_first(client: openai.OpenAI, served: Served) -> None:
    text = complete(client, "hello").choices[0].text
    assert complete(client, "hello", echo=True).choices[0].text == "hello" + text
    assert complete(client, served.model.encode_text("hello"), echo=True).choices[0].text == "hello" + text
    events = complete(client, "hello", echo=True, stream=True)
    assert "".join(event.choices[0].text for event in events) == "hello" + text


def test_usage_tells_cached_tokens(client: openai.OpenAI) -> None:
    question = "something that nobody has asked before " * 4
    first, second = ask(client, question).usage, ask(client, question).usage
    assert first.prompt_tokens == second.prompt_tokens > 64
    assert first.total_tokens == first.prompt_tokens + first.completion_tokens
    assert first.prompt_tokens_details.cached_tokens < 32
    assert second.prompt_tokens - 32 <= second.prompt_tokens_details.cached_tokens < second.prompt_tokens


def test_without_a_limit_the_context_is_the_limit(client: openai.OpenAI, served: Served) -> None:
    endless = {str(token): -100 for token in served.model.manifest.tokens.eos}
    answer = ask(client, "Hello", max_tokens=None, logit_bias=endless)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == CONTEXT


def test_the_newer_name_of_the_limit_wins(client: openai.OpenAI) -> None:
    assert ask(client, "Hello", max_tokens=9, max_completion_tokens=3).usage.completion_tokens == 3


def test_bias_penalty_and_extensions_reach_the_sampler(client: openai.OpenAI) -> None:
    biased = complete(client, "hello", logit_bias={"10": 100, "11": 99}, max_tokens=6, logprobs=0)
    assert len(set(biased.choices[0].logprobs.tokens)) == 1
    fields = {"logit_bias": {"10": 100, "11": 99}, "max_tokens": 6, "logprobs": 0}
    penalised = complete(client, "hello", **fields, presence_penalty=2.0)
    assert len(set(penalised.choices[0].logprobs.tokens)) >= 2
    greedy = complete(client, "hello").choices[0].text
    for extension in ({"top_k": 1}, {"min_p": 1.0}):
        assert complete(client, "hello", temperature=2.0, extra_body=extension).choices[0].text == greedy
    assert complete(client, "hello", temperature=1.0, seed=1, extra_body={"top_k": -1}).choices[0].text != greedy


def test_models(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]
    assert client.models.retrieve("tiny") == models[0]
    assert models[0].max_model_len == CONTEXT


def test_the_fingerprint_names_the_package(client: openai.OpenAI, served: Served) -> None:
    assert ask(client, "Hello", max_tokens=1).system_fingerprint == f"fp_{served.model.package.digest[:12]}"


def test_metrics_count_what_happened(client: openai.OpenAI, served: Served) -> None:
    def read(name: str) -> float:
        lines = patience.get(f"{served.url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).rsplit(" ", 1)[1])

    model = '{model_name="tiny"}'
    names = ("edgeai_generation_tokens_total", "edgeai_prompt_tokens_total", "edgeai_time_to_first_token_seconds_count")
    before = [read(name + model) for name in names]
    usage = ask(client, "Hello again", n=2).usage
    after = [read(name + model) for name in names]
    assert after[0] - before[0] == usage.completion_tokens
    assert after[1] - before[1] == 2 * usage.prompt_tokens  # the engine's own count: every sample has the prompt
    assert after[2] - before[2] == 1
    assert read("edgeai_num_requests_running" + model) == 0
    assert read("edgeai_prefix_cache_hits_total" + model) > 0
    assert 0 < read("edgeai_kv_cache_used_bytes" + model) <= read("edgeai_kv_cache_budget_bytes" + model)


def test_health_and_schema(served: Served) -> None:
    assert patience.get(f"{served.url}/health").json() == {
        "status": "ok", "models": ["tiny"], "running": 0, "waiting": 0, "loaded": {"tiny": ANY},
        "memory": {"level": 0, "state": "normal", "available_bytes": ANY},
    }  # fmt: skip
    assert httpx.head(f"{served.url}/health").status_code == 200
    schema = patience.get(f"{served.url}/openapi.json").json()
    assert "/v1/chat/completions" in schema["paths"]
    assert "messages" in schema["components"]["schemas"]["ChatRequest"]["required"]
    assert patience.get(f"{served.url}/docs").status_code == 404  # it would load scripts from the internet
