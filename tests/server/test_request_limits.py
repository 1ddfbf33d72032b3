"""Limits of heads and bodies, over real connections."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from edgeai.server.request_limits import MAX_BRACKETS, MAX_HEADERS
from tests.fixtures.patience import get, post
from tests.server.scripted import ScriptedModel
from tests.server.serving import Served, serving
from tests.server.test_errors import CHAT, HELLO, JSON, refusal


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(ScriptedModel()) as server:
        yield server


def test_compressed_bodies_are_not_opened(served: Served) -> None:
    bomb = gzip.compress(b" " * (10 << 20))
    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        answer = post(served.url + CHAT, content=bomb, headers={**JSON, "content-encoding": encoding})
        assert "compressed" in refusal(answer, 415)["message"]
    plain = json.dumps({"messages": HELLO}).encode()
    assert post(served.url + CHAT, content=plain, headers={**JSON, "content-encoding": "identity"}).is_success


def test_heads_have_a_limit(served: Served) -> None:
    many = [(f"x-{number}", "a") for number in range(MAX_HEADERS + 1)]
    assert refusal(get(served.url, headers=many), 431)["code"] == "request_too_large"
    assert get(served.url, headers=many[: MAX_HEADERS // 2]).status_code == 200
    refusal(get(served.url, headers={"x-long": "a" * 17_000}), 431)
    refusal(get(served.url + "/" + "a" * 5000), 414)
    refusal(get(served.url + "/?" + "a" * 5000), 414)


def test_small_objects_without_number(served: Served) -> None:
    """Three bytes of text each would be seventy in memory."""
    flood = b'{"messages": [' + b"{}," * MAX_BRACKETS + b"{}]}"
    assert "brackets" in refusal(post(served.url + CHAT, content=flood, headers=JSON), 413)["message"]
    chunks = (flood[start : start + 10_000] for start in range(0, len(flood), 10_000))
    refusal(post(served.url + CHAT, content=chunks, headers=JSON), 413)


@pytest.mark.parametrize("depth", [500, 5_000, 50_000])
@pytest.mark.parametrize("field", ["messages", "tools", "metadata", "logit_bias"])
def test_deep_json(served: Served, field: str, depth: int) -> None:
    """Whether or not a field is looked at, nesting without end is refused or ignored, and never fails."""
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = opening * depth + ("1" if opening != "[" else "") + closing * depth
        body = f'{{"messages": {json.dumps(HELLO)}, "{field}": {inner}}}'
        answer = post(served.url + CHAT, content=body, headers=JSON)
        assert answer.status_code in (200, 400)
        if answer.status_code == 400:
            refusal(answer, 400)


@pytest.mark.parametrize(
    "number", ["9" * 5000, "1e999", "-1e999", "1E400000000", "0." + "1" * 100_000], ids=lambda text: text[:12]
)
def test_numbers_without_measure(served: Served, number: str) -> None:
    for field in ("temperature", "max_tokens", "seed", "metadata"):
        body = f'{{"messages": {json.dumps(HELLO)}, "{field}": {number}}}'
        answer = post(served.url + CHAT, content=body, headers=JSON)
        assert answer.status_code in (200, 400), answer.text


def test_ollamas_clients_need_not_call_json_by_its_name(served: Served) -> None:
    """`curl -d` says that it sends a form; a form that a page elsewhere sends has an origin, and is refused."""
    body = json.dumps({"model": "scripted", "messages": HELLO, "stream": False})
    form = {"content-type": "application/x-www-form-urlencoded"}
    for headers in (form, {}):
        answer = post(f"{served.url}/api/chat", content=body, headers=headers)
        assert (answer.status_code, answer.json()["done"]) == (200, True)
    own = {**form, "origin": served.url}
    assert post(f"{served.url}/api/chat", content=body, headers=own).status_code == 415
    elsewhere = {**form, "origin": "https://elsewhere.example"}
    assert post(f"{served.url}/api/chat", content=body, headers=elsewhere).status_code == 403
    assert post(served.url + CHAT, content=body, headers=form).status_code == 415
