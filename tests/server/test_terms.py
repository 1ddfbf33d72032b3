"""From a request to the terms it is served on, and what becomes of requests beyond them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request

from edgeai.engine.terms import Priority, Terms
from edgeai.errors import DeadlineExceeded, InvalidInput, TooManyRequests
from edgeai.server.openai.terms import client_of, terms_of
from tests.fixtures import patience
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

HELLO: Any = [{"role": "user", "content": "Hello"}]


@dataclass
class Body:
    service_tier: str | None = None
    priority: Any = None
    timeout: float | None = None


def request(headers: dict[str, str] | None = None, **scope: Any) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "headers": raw, "client": ("10.0.0.7", 1234), **scope})


@pytest.mark.parametrize(
    ("body", "priority"),
    [
        (Body(), Priority.INTERACTIVE),
        (Body(service_tier="auto"), Priority.INTERACTIVE),
        (Body(service_tier="priority"), Priority.INTERACTIVE),
        (Body(service_tier="flex"), Priority.BATCH),
        (Body(priority="batch"), Priority.BATCH),
        (Body(priority="interactive", service_tier="flex"), Priority.INTERACTIVE),
        (Body(priority=-3), Priority.INTERACTIVE),
        (Body(priority=0, service_tier="flex"), Priority.INTERACTIVE),
        (Body(priority=5), Priority.BATCH),
    ],
)
def test_priorities_of_several_apis(body: Body, priority: Priority) -> None:
    assert terms_of(request(), body).priority is priority


def test_the_client_is_whom_the_door_found_or_the_key_or_the_address() -> None:
    keyed = {"authorization": "Bearer secret"}
    assert client_of(request()) == "10.0.0.7"
    assert client_of(request(keyed, state={"client": "reception"})) == "reception"
    assert client_of(request(keyed)) == client_of(request(keyed, client=("10.0.0.8", 1)))
    assert client_of(request(keyed)) != client_of(request({"authorization": "Bearer other"}))
    assert "secret" not in client_of(request(keyed))
    assert client_of(request(client=None)) == ""


def test_deadlines_come_from_the_body_or_the_head() -> None:
    header = {"x-request-timeout": "2.5"}
    for made, seconds in (
        (terms_of(request(), Body(timeout=7)), 7.0),
        (terms_of(request(header), Body()), 2.5),
        (terms_of(request(header), Body(timeout=7)), 7.0),
    ):
        assert made.deadline is not None
        assert 0 <= time.monotonic() + seconds - made.deadline < 1
    assert terms_of(request(), Body()).deadline is None


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e9", ""])
def test_a_header_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="x-request-timeout"):
        terms_of(request({"x-request-timeout": text}), Body())


def post(served: Served, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    path = "completions" if "prompt" in body else "chat/completions"
    content = body if "prompt" in body else {"messages": HELLO, **body}
    return patience.post(f"{served.url}/v1/{path}", json=content, headers=headers)


def test_both_endpoints_pass_them_on() -> None:
    with serving(ScriptedModel(Script(text="Hi"))) as served:
        for body in ({}, {"prompt": "Hello"}):
            answer = post(served, {"authorization": "Bearer k"}, service_tier="flex", timeout=60, **body)
            assert answer.status_code == 200
        first, second = served.model.terms
    assert isinstance(first, Terms)
    assert first.client == second.client != "127.0.0.1"
    assert first.priority is second.priority is Priority.BATCH
    assert first.deadline is not None
    assert second.deadline is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("service_tier", "cheap"), ("priority", "low"), ("priority", 0.5), ("timeout", 0), ("timeout", "5")],
)
def test_wrong_terms_are_named(field: str, value: object) -> None:
    with serving(ScriptedModel()) as served:
        answer = post(served, **{field: value})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["param"]


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_have_their_status_and_say_what_to_do(stream: bool) -> None:
    """In the words of OpenAI's client."""
    crowd = TooManyRequests("4 of your requests are waiting already", "try again in 9 seconds", retry_after=9)
    for failure, status, code, header in (
        (crowd, 429, "rate_limit_exceeded", ("retry-after", "9")),
        (DeadlineExceeded("too late"), 504, "deadline_exceeded", ("x-should-retry", "false")),
    ):
        with serving(ScriptedModel(Script(fail_after=0, failure=failure))) as served:
            answer = post(served, stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.headers[header[0]] == header[1]
            client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model="", messages=HELLO, stream=stream)
            assert caught.value.status_code == status


def test_openais_client_does_not_repeat_what_is_late() -> None:
    with serving(ScriptedModel(Script(fail_after=0, failure=DeadlineExceeded("too late")))) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=3)
        with pytest.raises(openai.InternalServerError, match="too late"):
            client.chat.completions.create(model="", messages=HELLO, extra_body={"timeout": 5})
        assert len(served.model.seen) == 1
