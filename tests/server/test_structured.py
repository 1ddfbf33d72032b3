"""Structured output of the real model behind the real server, asked by the real client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from edgeai.package.package import Package
from tests.fixtures.grammars import schema_cases
from tests.server.serving import Served
from tests.server.smollm import client_of, serving_smollm

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "degrees": {"type": "integer", "minimum": -40, "maximum": 50},
        "sky": {"enum": ["clear", "cloudy", "rain"]},
    },
    "required": ["city", "degrees", "sky"],
}
IMPOSSIBLE = {"allOf": [{"type": "string"}, {"type": "null"}]}
QUESTION: Any = [{"role": "user", "content": "What is the weather in Nairobi? Answer in JSON."}]


class Person(BaseModel):
    """A schema as pydantic writes it."""

    name: str = Field(max_length=30)
    age: int = Field(ge=0, le=120)
    sex: Literal["female", "male"]
    hobbies: list[str] = Field(max_length=2)


@pytest.fixture(scope="module")
def served(smollm_package: Package) -> Iterator[Served]:
    with serving_smollm(smollm_package) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def response_format(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    given = {"messages": QUESTION, "temperature": 0, "max_tokens": 200} | fields
    return client.chat.completions.create(model="default", **given)


def text(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_a_schema(client: openai.OpenAI) -> None:
    answer = ask(client, response_format=response_format(WEATHER, strict=True))
    jsonschema.validate(json.loads(text(answer)), WEATHER)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 5


def test_any_object(client: openai.OpenAI) -> None:
    for most in (10, 60, 500):
        answer = ask(client, response_format={"type": "json_object"}, temperature=0.7, seed=1, max_tokens=most)
        assert answer.choices[0].finish_reason == "stop"
        assert isinstance(json.loads(text(answer)), dict)


def test_parse_with_pydantic(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Describe Amina, a farmer of 34 years, as JSON."}]
    answer = client.chat.completions.parse(
        model="default", messages=messages, response_format=Person, temperature=0, max_tokens=200
    )
    person = answer.choices[0].message.parsed
    assert person is not None
    assert person.name
    with client.chat.completions.stream(
        model="default", messages=messages, response_format=Person, temperature=0, max_tokens=200
    ) as events:
        streamed = events.get_final_completion().choices[0].message.parsed
    assert streamed is not None  # drafts are as long as they were measured to pay, and longer runs round differently
    assert streamed.name == person.name


@pytest.mark.parametrize("seed", range(4))
def test_sampled_samples_side_by_side(client: openai.OpenAI, seed: int) -> None:
    """Each of n has a state of its own; streamed they are the same."""
    fields: dict[str, Any] = {"response_format": response_format(WEATHER), "n": 3, "seed": seed, "temperature": 1.0}
    answer = ask(client, **fields)
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), WEATHER)
    pieces = [""] * 3
    for event in ask(client, stream=True, **fields):
        pieces[event.choices[0].index] += event.choices[0].delta.content or ""
    for piece in pieces:
        jsonschema.validate(json.loads(piece), WEATHER)


def test_schemas_and_free_text_in_one_batch(served: Served) -> None:
    cases = schema_cases()[::29]

    async def together() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as many:
            given: dict[str, Any] = {"model": "default", "temperature": 0, "max_tokens": 400}
            jobs = [
                many.chat.completions.create(
                    messages=[{"role": "user", "content": case.prompt}],
                    response_format=response_format(case.schema),  # type: ignore[arg-type]
                    **given,
                )
                for case in cases
            ]
            free = [many.chat.completions.create(messages=QUESTION, **given | {"max_tokens": 40}) for _ in range(2)]
            return await asyncio.gather(*jobs, *free)

    answers = asyncio.run(together())
    for case, answer in zip(cases, answers, strict=False):
        assert answer.choices[0].finish_reason == "stop", case.name
        jsonschema.validate(json.loads(text(answer)), case.schema)
    assert all(text(answer) for answer in answers[-2:])


@pytest.mark.parametrize(
    ("field", "value", "pattern"),
    [
        ("structured_outputs", {"regex": "[0-9]{1,2} degrees"}, "[0-9]{1,2} degrees"),
        ("structured_outputs", {"choice": ["sunny", "rainy"]}, "sunny|rainy"),
        ("structured_outputs", {"grammar": 'root ::= "It is " [a-z]{3,9} "."'}, r"It is [a-z]{3,9}\."),
        ("structured_outputs", {"json": {"type": "integer", "minimum": 10, "maximum": 30}}, "[123][0-9]"),
        ("guided_regex", "(yes|no)!", "(yes|no)!"),
        ("guided_choice", ["a", "b"], "a|b"),
        ("guided_json", '{"type": "boolean"}', "true|false"),
        ("guided_grammar", 'start: "x" | "y"', "x|y"),
    ],
)
def test_what_vllm_has_beyond_openai(client: openai.OpenAI, field: str, value: Any, pattern: str) -> None:
    assert re.fullmatch(pattern, text(ask(client, extra_body={field: value})))
    answer = client.completions.create(
        model="default", prompt="The weather:", temperature=0, max_tokens=60, extra_body={field: value}
    )
    assert re.fullmatch(pattern, answer.choices[0].text)


def test_hardly_any_room_is_enough(client: openai.OpenAI) -> None:
    """A story without an end, and a list in front of what is required."""
    texts = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "properties": {"story": {"type": "string"}, "more": texts, "city": {"type": "string"}}}
    form = response_format(schema | {"required": ["story", "more", "city"]})
    for most in (24, 40, 90):
        answer = ask(
            client, response_format=form, max_tokens=most, messages=[{"role": "user", "content": "A long story!"}]
        )
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens <= most
        jsonschema.validate(json.loads(text(answer)), schema)


def test_stop_strings_and_limits_still_hold(client: openai.OpenAI) -> None:
    form = response_format(WEATHER)
    cut = ask(client, response_format=form, max_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    assert '{"city": "'.startswith(text(cut)) or text(cut).startswith('{"city": "')
    stopped = ask(client, response_format=form, stop=['"degrees"'])
    assert stopped.choices[0].finish_reason == "stop"
    assert text(stopped).endswith(", ")


def test_log_probabilities_cover_the_text(client: openai.OpenAI) -> None:
    answer = ask(client, response_format=response_format(WEATHER), logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == text(answer)
    assert any(token.top_logprobs[0].token != token.token for token in tokens)  # what the model would have said


def test_the_end_may_be_unwelcome(served: Served, client: openai.OpenAI) -> None:
    """Where only the end is left, no bias keeps the model from it."""
    never = {str(token): -100 for token in served.model.manifest.tokens.eos}
    answer = ask(client, response_format=response_format(WEATHER), logit_bias=never)
    jsonschema.validate(json.loads(text(answer)), WEATHER)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (
            {"response_format": response_format({"type": "array", "uniqueItems": True})},
            "response_format",
            "uniqueItems",
        ),
        (
            {"response_format": response_format({"allOf": [{"type": "string"}, {"type": "null"}]})},
            "response_format",
            "Uns",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema is missing"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex", "unclosed"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "choices"),
        ({"guided_json": "{"}, "guided_json", "not JSON"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex", "two forms"),
    ],
)
def test_refusals_name_the_field_and_the_fault(served: Served, fields: dict[str, Any], param: str, words: str) -> None:
    for stream in (False, True):
        body = {"messages": QUESTION, "stream": stream, **fields}
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == param
        assert words in error["message"]


def test_not_strict_is_lenient(client: openai.OpenAI) -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2, "uniqueItems": True}
    assert isinstance(json.loads(text(ask(client, response_format=response_format(schema, strict=False)))), list)
