"""/tokenize and /detokenize of the real model: what they say is what answers count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from tests.fixtures import patience
from tests.server.serving import Served, serving

CHAT = [{"role": "user", "content": "Mambo! <|im_end|> ஆ"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather."}}


@pytest.fixture(scope="module")
def served(smollm_package: Package) -> Iterator[Served]:
    settings = default_settings(smollm_package.manifest, max_rows=2, max_context=512, kv_budget_bytes=1 << 28)
    with serving(AsyncModel.load(smollm_package, settings)) as server:
        yield server


def post(served: Served, path: str, **body: Any) -> httpx.Response:
    return patience.post(f"{served.url}{path}", json={"model": "default", **body})


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    return str(answer.json()["error"]["param"])


def test_a_text_and_back(served: Served) -> None:
    text = "Habari ya asubuhi, mwalimu: 2+2=4 ஆ"
    tokens = post(served, "/tokenize", prompt=text).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert tokens["max_model_len"] == 512
    assert tokens["token_strs"] is None
    assert post(served, "/detokenize", tokens=tokens["tokens"]).json() == {"prompt": text}
    usage = post(served, "/v1/completions", prompt=text, max_tokens=1).json()["usage"]
    assert usage["prompt_tokens"] == tokens["count"]


def test_strings_of_tokens(served: Served) -> None:
    answer = post(served, "/tokenize", prompt="Good morning", return_token_strs=True).json()
    assert "".join(answer["token_strs"]) == "Good morning"
    assert len(answer["token_strs"]) == answer["count"]


@pytest.mark.parametrize("fields", [{}, {"tools": [WEATHER]}], ids=["plain", "tools"])
def test_a_chat_is_what_its_answer_counts(served: Served, fields: dict[str, Any]) -> None:
    tokens = post(served, "/tokenize", messages=CHAT, **fields).json()["tokens"]
    usage = post(served, "/v1/chat/completions", messages=CHAT, max_tokens=1, **fields).json()["usage"]
    assert usage["prompt_tokens"] == len(tokens)
    text = post(served, "/detokenize", tokens=tokens).json()["prompt"]
    assert text.endswith("Mambo! <|im_end|> ஆ<|im_end|>\n<|im_start|>assistant\n")
    assert ("get_weather" in text) is bool(fields)
    unasked = post(served, "/tokenize", messages=CHAT, add_generation_prompt=False, **fields).json()["tokens"]
    assert unasked == tokens[: len(unasked)]
    assert post(served, "/detokenize", tokens=tokens[len(unasked) :]).json()["prompt"] == "<|im_start|>assistant\n"


def test_nothing_is_no_tokens(served: Served) -> None:
    assert post(served, "/tokenize", prompt="").json()["tokens"] == []
    assert post(served, "/detokenize", tokens=[]).json()["prompt"] == ""


def test_what_cannot_be(served: Served) -> None:
    assert refused(post(served, "/tokenize")) == "prompt"
    assert refused(post(served, "/tokenize", prompt="a", messages=CHAT)) == "prompt"
    assert refused(post(served, "/tokenize", messages=[])) == "messages"
    assert refused(post(served, "/detokenize", tokens=[49152])) == "tokens"
    assert refused(post(served, "/detokenize", tokens=[0, -1])) == "tokens[1]"
    far = post(served, "/tokenize", prompt="word " * 100_000, add_special_tokens=False)
    assert far.json()["error"]["code"] == "context_length_exceeded"
    assert post(served, "/tokenize", model="absent", prompt="a").status_code == 404
