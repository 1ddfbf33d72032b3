"""/v1/responses over a scripted model: what becomes of requests, and every event of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from edgeai.grammar.compiler import GrammarCompiler
from edgeai.text import ChatTemplate
from tests.fixtures import patience
from tests.server.clients import strict_client
from tests.server.scripted import EOS, Script, ScriptedModel
from tests.server.serving import Served, serving
from tests.server.test_reasoning import THINKING

TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}, "strict": None}
CALL = '<tool_call>\n{"name": "look_up", "arguments": {}}\n</tool_call>'
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def model() -> ScriptedModel:
    scripted: Any = ScriptedModel(Script("Hello."), context_length=2048)
    scripted.grammars = GrammarCompiler(scripted.tokenizer, (EOS,))  # which the script does not follow
    return scripted


@pytest.fixture
def served(model: ScriptedModel) -> Iterator[Served]:
    with serving(model) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with strict_client(served.url) as made:
        yield made


def post(served: Served, **body: Any) -> httpx.Response:
    return patience.post(f"{served.url}/v1/responses", json=body)


def prompt_of(model: ScriptedModel) -> str:
    return model.tokenizer.decode(model.seen[-1][0], skip_control=False)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """All events, each of which is named as its type, numbered and valid as the client's package has it."""
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_a_response(model: ScriptedModel, served: Served) -> None:
    answer = post(served, input="Hi", instructions="Be brief.", metadata={"a": "b"}, temperature=0.5, top_p=1.0)
    response = Response.model_validate(answer.json(), strict=True)
    assert (response.status, response.output_text) == ("completed", "Hello.")
    assert response.model == "scripted"
    assert answer.json()["store"] is False
    assert (response.instructions, response.metadata, response.temperature) == ("Be brief.", {"a": "b"}, 0.5)
    assert response.usage is not None
    assert response.usage.output_tokens == len("Hello.") + 1
    assert response.usage.input_tokens == len(model.seen[0][0])
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>" in prompt_of(model)


def test_the_sequence_of_events(served: Served) -> None:
    answer = post(served, input="Hi", stream=True)
    events = events_of(answer)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len("Hello."),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(event["delta"] for event in events if "delta" in event) == "Hello."
    last = events[-1]["response"]
    assert last["output"] == [events[-2]["item"]]
    assert last["output"][0]["status"] == "completed"
    assert events[0]["response"]["output"] == []
    assert events[2]["item"]["content"] == []


def test_thoughts_words_and_calls_are_items(model: ScriptedModel, served: Served) -> None:
    model.template = ChatTemplate(THINKING, {})
    model.script.text = f"<think>\nHm.\n</think>\n\nWait. {CALL}"
    events = events_of(post(served, input="Hi", tools=[TOOL], stream=True))
    response = events[-1]["response"]
    thoughts, said, call = response["output"]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert said["content"][0]["text"].strip() == "Wait."
    assert (call["type"], call["name"], json.loads(call["arguments"])) == ("function_call", "look_up", {})
    assert {item["status"] for item in response["output"]} == {"completed"}
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] >= len("Hm.")
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert added == [item["id"] for item in response["output"]]
    whole = post(served, input="Hi", tools=[TOOL]).json()
    same = ("type", "content", "name", "arguments", "status")
    assert [[item.get(name) for name in same] for item in whole["output"]] == [
        [item.get(name) for name in same] for item in response["output"]
    ]
    assert whole["usage"] == response["usage"]


def test_what_was_cut_is_incomplete(served: Served) -> None:
    response = post(served, input="Hi", max_output_tokens=3).json()
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert events_of(post(served, input="Hi", max_output_tokens=3, stream=True))[-1]["type"] == "response.incomplete"


def test_nothing_said_is_a_message_too(model: ScriptedModel, served: Served) -> None:
    model.script.text = ""
    assert post(served, input="Hi").json()["output"][0]["content"][0]["text"] == ""


def test_a_failure_in_a_stream_is_an_event(model: ScriptedModel, served: Served) -> None:
    model.script.fail_after = 2
    last = events_of(post(served, input="Hi", stream=True))[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert "secret" not in json.dumps(last)
    model.script.fail_after = 0
    assert post(served, input="Hi", stream=True).status_code == 500


def test_a_failure_before_the_first_token_begins_a_response_too(
    model: ScriptedModel, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When comments have kept the connection alive, the client's package wants to see the beginning first."""
    monkeypatch.setattr("edgeai.server.streaming.KEEP_ALIVE_SECONDS", 0.01)
    model.script.fail_after, model.script.prefill = 0, 0.1
    with client.responses.stream(model="scripted", input="Hi") as stream:
        assert [event.type for event in stream] == ["response.created", "response.in_progress", "response.failed"]


def test_a_stream_that_cannot_begin_names_the_field_as_sent(served: Served) -> None:
    answer = post(served, input="a" * 2100, stream=True)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


def test_items_become_turns(model: ScriptedModel, served: Served) -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "In English."}]},
        {"role": "user", "content": "Who?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me look."}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "Asha"}]},
        {"role": "user", "content": "Thanks."},
    ]
    assert post(served, input=items, instructions="Be brief.").status_code == 200
    roles = [turn.partition("\n")[0] for turn in prompt_of(model).split("<|im_start|>")[1:]]
    assert roles == ["system", "user", "assistant", "user", "user", "assistant"]
    assert "system\nBe brief.\n\nIn English.<|im_end|>" in prompt_of(model)
    assert "Let me look.\n<tool_call>" in prompt_of(model)
    assert "Asha" in prompt_of(model)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"type": "computer_call"}]}, "input[0]"),
        ({"input": [1]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].message.content"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].function_call.name"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "input"),
        ({"input": "a" * 3000}, "input"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "conversation": "conv_1"}, "conversation"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "truncation": "auto"}, "truncation"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].name"),
        ({"input": "a", "tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": "a", "tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"input": "a", "tools": [{**TOOL, "strict": True, "parameters": {"not": {}}}]}, "tools[0].parameters"),
        ({"input": "a", "text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_is_named(served: Served, body: dict[str, Any], param: str) -> None:
    answer = post(served, **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_allowed_tools_are_the_others_left_out(model: ScriptedModel, client: openai.OpenAI) -> None:
    model.script.text = CALL
    allowed: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look_up"}]}
    response = client.responses.create(
        model="scripted", input="Hi", tools=[{**TOOL, "name": "other"}, TOOL], tool_choice=allowed
    )
    assert [item.type for item in response.output] == ["function_call"]
    assert '"name": "other"' not in prompt_of(model)
    assert [tool.name for tool in response.tools if tool.type == "function"] == ["other", "look_up"]
