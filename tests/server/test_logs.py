"""Lines that people and programs read, and the ids that tie them to answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from edgeai.server.logs import JsonFormatter, TextFormatter, request_id
from tests.fixtures.patience import PATIENCE
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

MESSAGES = [{"role": "user", "content": "secret question"}]


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(ScriptedModel(Script(text="Yes."))) as server:
        yield server


class Written(logging.Handler):
    """Lines as they are written, at the moment they are."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Iterator[Written]:
    caplog.set_level(logging.INFO)
    handler, logger = Written(), logging.getLogger("edgeai.server")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_an_answer_and_its_line_have_one_id(served: Served, written: Written) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=PATIENCE) as client:
        answer = client.chat.completions.create(model="default", messages=MESSAGES)
    assert answer._request_id
    assert served.eventually(lambda: bool(written.lines))
    (line,) = written.lines
    assert line["request_id"] == answer._request_id
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    usage = answer.usage
    assert (line["prompt_tokens"], line["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert "secret" not in json.dumps(line)


def test_failures_have_it_too(served: Served, written: Written) -> None:
    served.model.script = Script(fail_after=0)
    body, headers = {"messages": MESSAGES}, {"x-request-id": "mine"}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE)
    given = answer.headers["x-request-id"]
    assert (answer.status_code, given == "mine") == (500, False)
    assert served.eventually(lambda: len(written.lines) == 2)
    assert {line["request_id"] for line in written.lines} == {given}
    assert "RuntimeError" in written.lines[0]["exception"]


def record(message: str) -> logging.LogRecord:
    made = logging.LogRecord("edgeai.x", logging.WARNING, "x.py", 1, message, (), None)
    made.created, made.msecs = 0.0, 5.0
    return made


def test_lines_for_programs() -> None:
    assert json.loads(JsonFormatter().format(record('a "b"\nc'))) == {
        "time": "1970-01-01T00:00:00.005Z",
        "level": "warning",
        "logger": "edgeai.x",
        "message": 'a "b"\nc',
    }


def test_lines_for_people() -> None:
    token = request_id.set("req_1")
    try:
        assert TextFormatter().format(record("a\nb")).endswith("WARNING a req_1\nb")
    finally:
        request_id.reset(token)
    assert TextFormatter().format(record("a")).endswith("WARNING a")
