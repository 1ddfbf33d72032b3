"""Every refusal has OpenAI's shape, the right status, and names what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgeai.server.body_budget import BodyBudget
from tests.fixtures import patience
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
JSON = {"content-type": "application/json"}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(ScriptedModel(Script(text="Hello there."))) as server:
        yield server


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error inside, after checking its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert document.keys() == {"error"}
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


def post(served: Served, path: str, **fields: Any) -> httpx.Response:
    return patience.post(served.url + path, json=fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -1}, "min_p"),
        ({"top_k": 0.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"logit_bias": {"12": 101}}, "logit_bias.12"),
        ({"logit_bias": {"twelve": 1}}, "logit_bias.twelve"),
        ({"logit_bias": {"999": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_values_out_of_range(served: Served, path: str, fields: dict[str, Any], param: str) -> None:
    given = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
    error = refusal(post(served, path, **given, **fields), 400)
    assert error["param"] == param
    assert error["code"] == "invalid_value"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "messages", "required"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "Hello"}, "messages", "list"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role", "required"),
        ({"messages": [{"role": "king", "content": "Hello"}]}, "messages[0].role", "assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "no content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "string"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content", "part 0 has no text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url"}]}]},
            "messages[0].content",
            "part 1 is of type 'image_url'",
        ),
        ({"messages": [*HELLO, {"role": "tool", "content": "4"}]}, "messages[1].tool_call_id", "call"),
        ({"messages": [*HELLO, {"role": "system", "content": "No"}]}, "messages", "system message has to come first"),
        ({"messages": HELLO, "max_completion_tokens": -1}, "max_completion_tokens", "greater"),
        ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"messages": HELLO, "functions": [{"name": "a b"}]}, "functions[0].name", "pattern"),
        ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type", "json_object"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_chats_that_cannot_be_answered(
    served: Served, fields: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    error = refusal(post(served, CHAT, stream=stream, **fields), 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "prompt", "required"),
        ({"prompt": None}, "prompt", "must be"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": []}, "prompt", "must be"),
        ({"prompt": [[]]}, "prompt", "not empty"),
        ({"prompt": ["a", 1]}, "prompt", "every prompt"),
        ({"prompt": [1, -1]}, "prompt", "every prompt"),
        ({"prompt": [1, 258]}, "prompt", "token 258 is outside"),
        ({"prompt": ["a"] * 129}, "prompt", "128"),
        ({"prompt": ["a"] * 65, "n": 2}, "n", "128"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "not supported"),
        ({"prompt": "a", "best_of": 3}, "best_of", "not supported"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo", "not supported"),
        ({"prompt": "a", "logprobs": 6}, "logprobs", "5"),
    ],
)
def test_completions_that_cannot_be_answered(served: Served, fields: dict[str, Any], param: str, words: str) -> None:
    error = refusal(post(served, TEXT, **fields), 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_value"),
        (b"{", "invalid_json"),
        (b"[1, 2]", "invalid_value"),
        (b'"text"', "invalid_value"),
        (b"\xff\xfe{}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"messages": NaN}', "invalid_value"),
    ],
)
def test_bodies_that_are_not_json(served: Served, body: bytes, code: str) -> None:
    error = refusal(patience.post(served.url + CHAT, content=body, headers=JSON), 400)
    assert error["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "logit_bias": {"\\ud800": 1}}',
        b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "\\udfff"}}',
    ],
)
def test_half_characters_are_refused_and_can_be_quoted(served: Served, body: bytes) -> None:
    refusal(patience.post(served.url + CHAT, content=body, headers=JSON), 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_must_be_declared_as_json(served: Served, kind: str) -> None:
    """Forms and plain text may be sent by any web page without asking; JSON may not."""
    content = b'{"messages": [{"role": "user", "content": "Hello"}]}'
    answer = patience.post(served.url + CHAT, content=content, headers={"content-type": kind} if kind else {})
    assert "application/json" in refusal(answer, 415)["message"]


def test_content_types_may_have_parameters(served: Served) -> None:
    content = b'{"messages": [{"role": "user", "content": "Hello"}]}'
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert patience.post(served.url + CHAT, content=content, headers=headers).status_code == 200


def test_bodies_have_a_limit() -> None:
    with serving(ScriptedModel(), bodies=BodyBudget(each=1000)) as served:
        large = b'{"messages": "' + b"a" * 1000 + b'"}'
        declared = patience.post(served.url + CHAT, content=large, headers=JSON)
        assert "1000 bytes" in refusal(declared, 413)["message"]
        chunked = patience.post(served.url + CHAT, content=iter([large]), headers=JSON)
        assert refusal(chunked, 413)["code"] == "request_too_large"
        assert post(served, CHAT, messages=HELLO).status_code == 200


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_prompts_longer_than_the_context(served: Served, path: str, stream: bool) -> None:
    text = "a" * 300
    given = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}
    error = refusal(post(served, path, stream=stream, **given), 400)
    assert error["code"] == "context_length_exceeded"
    surplus = 300 - 256 + 1 + (len("<>user\n<>\n<>assistant\n") - 3 if path == CHAT else 0)
    assert f"by {surplus} tokens" in error["message"]


def test_models_that_are_not_there(served: Served) -> None:
    for answer in (post(served, CHAT, messages=HELLO, model="gpt-5"), patience.get(served.url + "/v1/models/gpt-5")):
        error = refusal(answer, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "gpt-5" in error["message"]
        assert "scripted" in error["message"]


@pytest.mark.parametrize("name", ["", "default", "scripted", None])
def test_names_of_the_default_model(served: Served, name: str | None) -> None:
    answer = post(served, CHAT, messages=HELLO, model=name)
    assert answer.status_code == 200
    assert answer.json()["model"] == "scripted"


def test_addresses_and_methods_that_do_not_exist(served: Served) -> None:
    assert refusal(patience.get(served.url + "/v2/chat"), 404)["code"] == "unknown_url"
    wrong = patience.put(served.url + "/v1/models")
    assert refusal(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "GET"


def test_fields_nobody_knows_are_ignored(served: Served) -> None:
    unknown = {"user": "me", "store": False, "service_tier": "auto", "metadata": {"a": "b"}, "tools": []}
    nothing = dict.fromkeys(("temperature", "stop", "n", "stream", "seed", "logit_bias", "response_format"))
    assert post(served, CHAT, messages=HELLO, **unknown, **nothing).status_code == 200


def test_parts_of_text_are_joined(served: Served) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    post(served, CHAT, messages=[{"role": "user", "content": parts}])
    prompt, _ = served.model.seen[-1]
    assert b"one\ntwo" in bytes(token for token in prompt if token < 256)


def test_developers_are_the_system(served: Served) -> None:
    post(served, CHAT, messages=[{"role": "developer", "content": "Be brief."}, *HELLO])
    prompt, _ = served.model.seen[-1]
    assert bytes(token for token in prompt if token < 256).startswith(b"system\nBe brief.")
