"""Request bodies together stay within what memory has for them; whoever comes later is told to come again."""

from __future__ import annotations

import threading

import httpx
import pytest
from starlette.exceptions import HTTPException

from edgeai.device.profile import Memory
from edgeai.server.body_budget import LEAST_BYTES, MAX_BODY_BYTES, BodyBudget
from tests.fixtures import patience
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import serving

CHAT = "/v1/chat/completions"


def body(size: int) -> bytes:
    """A chat of exactly so many bytes."""
    frame = b'{"messages": [{"role": "user", "content": "Hello"}], "user": "%s"}'
    return frame % (b"a" * (size - len(frame) + 2))


def test_the_budget_follows_the_device() -> None:
    small = BodyBudget.of(Memory(total=8 << 30, available=1, limit=512 << 20))
    assert LEAST_BYTES < small.each < MAX_BODY_BYTES
    assert BodyBudget.of(Memory(total=64 << 30, available=1, limit=None)).each == MAX_BODY_BYTES


def test_what_is_over_is_given_back() -> None:
    budget = BodyBudget(each=100, together=150)
    budget.check(100)
    budget.take(100)
    with pytest.raises(HTTPException) as raised:
        budget.check(51)
    assert raised.value.status_code == 503
    with pytest.raises(HTTPException) as raised:
        budget.check(50, already=60)
    assert raised.value.status_code == 413
    budget.give_back(100)
    budget.check(100)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_request_waits_for_the_others(chunked: bool) -> None:
    def post(size: int) -> httpx.Response:
        content = iter([body(size)]) if chunked else body(size)
        return patience.post(served.url + CHAT, content=content, headers={"content-type": "application/json"})

    bodies = BodyBudget(each=1000, together=1500)
    with serving(ScriptedModel(Script(text="Hello", delay=0.2)), bodies=bodies) as served:
        answers: list[httpx.Response] = []
        first = threading.Thread(target=lambda: answers.append(post(900)))
        first.start()
        assert served.eventually(lambda: served.model.running == 1)
        refused = post(900)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        assert post(500).status_code == 200  # a short one finds room
        first.join()
        assert answers[0].status_code == 200
        assert post(900).status_code == 200
    assert bodies.held == 0
