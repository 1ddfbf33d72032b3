"""Thoughts apart from answers, over HTTP: a scripted model with the chat template of a thinking one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from edgeai.text import ChatTemplate
from tests.server.clients import strict_client
from tests.server.scripted import TEMPLATE, Script, ScriptedModel
from tests.server.serving import serving

THINKING = (
    TEMPLATE.removesuffix("{% endif -%}")
    + """{%- if enable_thinking is defined and enable_thinking is false -%}<think>

</think>

{% elif reasoning_effort == "high" -%}<think>
{% endif -%}
{% endif -%}"""
)
QUESTION: Any = [{"role": "user", "content": "Why?"}]
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def model() -> ScriptedModel:
    thinking = ScriptedModel(Script("<think>\nLet me see: a <b> c.\n</think>\n\nBecause."))
    thinking.template = ChatTemplate(THINKING, {})
    return thinking


@pytest.fixture
def client(model: ScriptedModel) -> Iterator[openai.OpenAI]:
    with serving(model) as served, strict_client(served.url) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(model="scripted", messages=QUESTION, **fields)


def test_thoughts_are_apart(client: openai.OpenAI) -> None:
    message = ask(client).choices[0].message
    assert message.content == "Because."
    assert message.reasoning_content == message.reasoning == "Let me see: a <b> c."


def test_streamed_they_are_the_same(client: openai.OpenAI) -> None:
    content, thoughts = "", ""
    for event in ask(client, stream=True):
        delta = event.choices[0].delta
        content += delta.content or ""
        thoughts += getattr(delta, "reasoning_content", None) or ""
        assert not (delta.content and getattr(delta, "reasoning_content", None))
    assert (content, thoughts) == ("Because.", "Let me see: a <b> c.")


def test_the_prompt_may_have_opened_the_thoughts(model: ScriptedModel, client: openai.OpenAI) -> None:
    model.script.text = "Deep thought.</think>42"
    message = ask(client, reasoning_effort="high").choices[0].message
    assert (message.reasoning_content, message.content) == ("Deep thought.", "42")


@pytest.mark.parametrize(
    "fields", [{"reasoning_effort": "none"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}]
)
def test_thinking_can_be_switched_off(model: ScriptedModel, client: openai.OpenAI, fields: Any) -> None:
    model.script.text = "Because."
    message = ask(client, **fields).choices[0].message
    assert message.content == "Because."
    assert not hasattr(message, "reasoning_content")
    prompt = model.tokenizer.decode(model.seen[-1][0], skip_control=False)
    assert prompt.endswith("<think>\n\n</think>\n\n")


def test_a_reply_that_ends_within_its_thoughts_has_no_content(model: ScriptedModel, client: openai.OpenAI) -> None:
    choice = ask(client, max_tokens=20).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.content == ""
    assert "Let me see: a <b> c.".startswith(choice.message.reasoning_content)
