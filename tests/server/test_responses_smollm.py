"""/v1/responses of the real model, asked by the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from tests.server.clients import strict_client
from tests.server.serving import serving
from tests.server.test_tools import CITY, GetWeather, check

QUESTION = "What is the weather in Nairobi?"
WEATHER: Any = {
    "type": "function",
    "description": "The weather.",
    "name": "get_weather",
    "parameters": CITY,
    "strict": None,
}


class Colour(BaseModel):
    colour: Literal["blue", "green"]
    certain: bool


@pytest.fixture(scope="module")
def client(smollm_package: Package) -> Iterator[openai.OpenAI]:
    # Without drafts: how many positions a run has follows from the machine's speed, and kernels round differently.
    limits: Any = {"max_rows": 2, "max_context": 1024, "kv_budget_bytes": 1 << 28, "draft_tokens": 0}
    settings = default_settings(smollm_package.manifest, **limits)
    with (
        serving(AsyncModel.load(smollm_package, settings)) as served,
        strict_client(served.url) as made,
    ):
        yield made


def ask(client: openai.OpenAI, question: Any = QUESTION, **fields: Any) -> Any:
    return client.responses.create(model="default", input=question, **({"temperature": 0} | fields))


def cached(client: openai.OpenAI, question: str, **fields: Any) -> Any:
    """The answer with the prompt from the cache, as the next will have it: else kernels may round differently."""
    ask(client, question, max_output_tokens=1)
    return ask(client, question, **fields)


def test_it_answers_as_a_chat_does(client: openai.OpenAI) -> None:
    question = "What is the capital of France?"
    response = cached(client, question, max_output_tokens=30)
    assert "Paris" in response.output_text
    messages: Any = [{"role": "user", "content": question}]
    chat = client.chat.completions.create(model="default", messages=messages, temperature=0, max_tokens=30)
    assert chat.choices[0].message.content == response.output_text
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == response.usage.input_tokens
    assert chat.usage.completion_tokens == response.usage.output_tokens


def test_streamed_it_is_the_same(client: openai.OpenAI) -> None:
    whole = cached(client, QUESTION, max_output_tokens=100, top_logprobs=2)
    with client.responses.stream(
        model="default", input=QUESTION, temperature=0, max_output_tokens=100, top_logprobs=2
    ) as stream:
        events = list(stream)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    last: Any = events[-1]
    assert last.type == f"response.{whole.status}"
    assert last.response.output_text == text
    said = last.response.output[0].content[0]
    assert b"".join(bytes(token.bytes) for token in said.logprobs).decode() == text
    assert [token.token for token in said.logprobs] == [token.token for token in whole.output[0].content[0].logprobs]


def test_a_call_and_its_result(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "name": "get_weather"}
    first = ask(client, tools=[WEATHER], tool_choice=choice, max_output_tokens=120)
    (call,) = first.output
    assert (call.type, call.name, first.output_text) == ("function_call", "get_weather", "")
    check_arguments(call.arguments)
    history = [{"role": "user", "content": QUESTION}, *(item.model_dump() for item in first.output)]
    results = ("21 degrees and sunny", "No such city")
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": result} for result in results]
    answers = {ask(client, [*history, output], max_output_tokens=60).output_text for output in outputs}
    assert len(answers) == len(results), "a small model need not repeat a result, but what it says follows from it"


def check_arguments(arguments: str) -> None:
    function = type("Function", (), {"name": "get_weather", "arguments": arguments})
    check(type("Call", (), {"function": function}))


def test_streamed_calls_are_put_together_and_parsed(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="default",
        input=QUESTION,
        tools=[openai.pydantic_function_tool(GetWeather)],  # type: ignore[list-item]
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_output_tokens=120,
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert "".join(deltas) == call.arguments
    GetWeather.model_validate_json(call.arguments)


def test_an_answer_of_a_form(client: openai.OpenAI) -> None:
    question = "What colour is the sky? Answer in JSON."
    response = client.responses.parse(
        model="default", input=question, text_format=Colour, temperature=0, max_output_tokens=60
    )
    assert isinstance(response.output_parsed, Colour)
    form: Any = {"format": {"type": "json_object"}}
    assert isinstance(json.loads(ask(client, question, text=form, max_output_tokens=200).output_text or "{}"), dict)


def test_a_conversation_goes_on_without_being_stored(client: openai.OpenAI) -> None:
    hello, name = ({"role": "user", "content": text} for text in ("I am Wanjiku. Say hello.", "What is my name?"))
    first = ask(client, [hello], max_output_tokens=20)
    second = ask(client, [hello, *first.output, name], max_output_tokens=20)
    messages: Any = [hello, {"role": "assistant", "content": first.output_text}, name]
    chat = client.chat.completions.create(model="default", messages=messages, max_tokens=1)
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == second.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    with pytest.raises(openai.BadRequestError, match="nothing is stored"):
        ask(client, "And now?", previous_response_id=first.id)
