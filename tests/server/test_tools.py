"""Tool calls of the real model behind the real server, asked by the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from edgeai.package.package import Package
from tests.server.serving import Served
from tests.server.smollm import client_of, serving_smollm

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "What time it is."}}
TOOLS: Any = [WEATHER, TIME]
QUESTION: Any = [{"role": "user", "content": "What is the weather in Nairobi?"}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


class GetWeather(BaseModel):
    """Get the weather of a city."""

    city: str = Field(max_length=20)
    days: int = Field(ge=1, le=7)


@pytest.fixture(scope="module")
def served(smollm_package: Package) -> Iterator[Served]:
    with serving_smollm(smollm_package) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    given = {"messages": QUESTION, "tools": TOOLS, "temperature": 0, "max_tokens": 120} | fields
    return client.chat.completions.create(model="default", **given)


def check(call: Any) -> None:
    schema = CITY if call.function.name == "get_weather" else {"maxProperties": 0}
    jsonschema.validate(json.loads(call.function.arguments), schema)


def test_a_named_call(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice=NAMED).choices[0]
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    check(call)
    assert choice.message.content is None
    assert choice.finish_reason == "tool_calls"


@pytest.mark.parametrize("seed", range(3))
def test_required_calls(client: openai.OpenAI, seed: int) -> None:
    answer = ask(client, tool_choice="required", parallel_tool_calls=False, n=3, seed=seed, temperature=1.0)
    for choice in answer.choices:
        (call,) = choice.message.tool_calls
        check(call)
        assert choice.finish_reason == "tool_calls"
    several = ask(client, tool_choice="required", max_tokens=300).choices[0]
    for call in several.message.tool_calls:
        check(call)
    assert len({call.id for call in several.message.tool_calls}) == len(several.message.tool_calls)


@pytest.mark.parametrize("strict", [False, True])
def test_a_call_with_hardly_any_room_is_whole(client: openai.OpenAI, strict: bool) -> None:
    wide = {"type": "object", "properties": {"question": {"type": "string"}, "days": {"type": "integer"}}}
    required = wide | {"required": ["question", "days"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "search", "parameters": required, "strict": strict}}
    for most in (40, 60):
        choice = ask(client, tools=[tool], tool_choice="required", max_tokens=most).choices[0]
        assert choice.finish_reason == "tool_calls"
        for call in choice.message.tool_calls:
            jsonschema.validate(json.loads(call.function.arguments), required)


def test_streamed_calls_are_the_same(client: openai.OpenAI) -> None:
    whole = ask(client, tool_choice="required", max_tokens=100).choices[0]
    calls: list[dict[str, str]] = []
    reasons = []
    pieces = 0
    for event in ask(client, tool_choice="required", max_tokens=100, stream=True):
        delta = event.choices[0].delta
        assert not delta.content
        for call in delta.tool_calls or []:
            if call.id:
                assert call.index == len(calls)
                calls.append({"name": call.function.name, "arguments": ""})
            calls[call.index]["arguments"] += call.function.arguments
            pieces += 1
        reasons.append(event.choices[0].finish_reason)
    expected = [call.function for call in whole.message.tool_calls]
    assert calls == [{"name": one.name, "arguments": one.arguments} for one in expected]
    assert pieces > 2 * len(calls)
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] == whole.finish_reason


def test_the_clients_own_stream_puts_calls_together(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(GetWeather)
    with client.chat.completions.stream(
        model="default",
        messages=QUESTION,
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_tokens=120,
        parallel_tool_calls=False,
    ) as stream:
        for _ in stream:
            pass
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)
    answer = client.chat.completions.parse(
        model="default",
        messages=QUESTION,
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_tokens=120,
        parallel_tool_calls=False,
    )
    (parsed,) = answer.choices[0].message.tool_calls or []
    assert parsed.function.parsed_arguments == call.function.parsed_arguments


def examples(cities: list[str]) -> Any:
    """A chat in which the assistant looks the weather up each time."""
    turns: list[Any] = []
    for number, city in enumerate(cities):
        function = {"name": "get_weather", "arguments": json.dumps({"city": city, "unit": "celsius"})}
        turns += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}]},
        ]
    return turns


def test_auto_is_free_to_speak_or_to_call(client: openai.OpenAI) -> None:
    """Where the model begins a call, it is a valid one, and nothing of its marks is text."""
    said = ask(client, max_tokens=20).choices[0]
    assert said.message.content or said.message.tool_calls
    messages = [*examples(["Kisumu", "Mombasa", "Eldoret"]), *QUESTION]
    choice = ask(client, messages=messages).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert "tool_call" not in (choice.message.content or "")
    for call in choice.message.tool_calls:
        check(call)
    text, names = "", []
    for event in ask(client, messages=messages, stream=True):
        text += event.choices[0].delta.content or ""
        names += [call.function.name for call in event.choices[0].delta.tool_calls or [] if call.id]
    assert text == (choice.message.content or "")
    assert names == [call.function.name for call in choice.message.tool_calls]


def test_none_and_no_tools_speak(client: openai.OpenAI) -> None:
    said = ask(client, tool_choice="none", max_tokens=20).choices[0].message
    assert said.tool_calls is None
    assert said.content == ask(client, tools=openai.omit, max_tokens=20).choices[0].message.content


def test_a_result_is_answered(client: openai.OpenAI) -> None:
    called = ask(client, tool_choice=NAMED).choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "21 degrees and sunny"}
    history = [*QUESTION, called.model_dump(exclude_none=True), result]
    answer = ask(client, messages=history, max_tokens=60).choices[0].message
    assert "21" in answer.content
    plain = ask(client, messages=history, tools=openai.omit, max_tokens=60).choices[0].message
    assert "21" in plain.content


def test_a_call_or_an_answer_of_a_form(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"sky": {"enum": ["clear", "grey"]}}, "required": ["sky"]}
    form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}
    message = ask(client, response_format=form).choices[0].message
    if message.tool_calls:
        check(message.tool_calls[0])
    else:
        jsonschema.validate(json.loads(message.content), schema)
    forced = ask(client, response_format=form, tool_choice=NAMED).choices[0].message
    check(forced.tool_calls[0])


def test_functions_as_they_were(client: openai.OpenAI) -> None:
    functions = [tool["function"] for tool in TOOLS]
    fields: dict[str, Any] = {"tools": openai.omit, "functions": functions, "function_call": {"name": "get_weather"}}
    choice = ask(client, **fields).choices[0]
    assert choice.finish_reason == "function_call"
    call = choice.message.function_call
    jsonschema.validate(json.loads(call.arguments), CITY)
    assert choice.message.content is None
    name, arguments = "", ""
    for event in ask(client, stream=True, **fields):
        if piece := event.choices[0].delta.function_call:
            name, arguments = name + (piece.name or ""), arguments + (piece.arguments or "")
    assert (name, arguments) == (call.name, call.arguments)
    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "function_call": call.model_dump()},
        {"role": "function", "name": "get_weather", "content": "21 degrees"},
    ]
    assert ask(client, messages=history, tools=openai.omit, functions=functions).choices[0].message.content


def test_log_probabilities_cover_calls_too(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice=NAMED, logprobs=True).choices[0]
    text = "".join(token.token for token in choice.logprobs.content)
    assert text.startswith("<tool_call>")
    assert choice.message.tool_calls[0].function.arguments in text


CALL = {"function": {"name": "f", "arguments": "{}"}}
DEEP: dict[str, Any] = {}
for _ in range(300):
    DEEP = {"properties": {"x": DEEP}}
BAD = [
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools[0].function.parameters"),
    ({"chat_template_kwargs": {"x": DEEP}}, "chat_template_kwargs"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [WEATHER], "tool_choice": "always"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
        "tools[0].function.parameters",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    (
        {
            "messages": [
                {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
            ]
        },
        "messages[0].tool_calls",
    ),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_refusals_name_the_field(served: Served, fields: dict[str, Any], param: str) -> None:
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"messages": QUESTION, **fields}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_what_strict_would_refuse_is_otherwise_ignored(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "maxItems": 1, "uniqueItems": True}}}
    tool = {"type": "function", "function": {"name": "tag", "parameters": schema}}
    assert ask(client, tools=[tool], tool_choice="required").choices[0].message.tool_calls
