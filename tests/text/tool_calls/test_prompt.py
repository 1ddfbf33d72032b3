"""Tools, calls and results in prompts: by the model's template, or as text for those that know of none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeai.text import ChatTemplate
from edgeai.text.tool_calls.detect import FORMATS, native_format, tool_prompting
from edgeai.text.tool_calls.prompt import call_id, native_messages, plain_messages, template_arguments
from tests.fixtures.chats import SPECIAL_TOKENS, template

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Kisumu"}'}}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "21", "tool_call_id": "c1"},
    {"role": "tool", "content": "22", "tool_call_id": "c1"},
]


def marked(mark: str, variable: str = "tools") -> ChatTemplate:
    return ChatTemplate(f"{{% if {variable} %}}x{{% endif %}}{{{{ {mark!r} }}}}", {})


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("<tool_call>", "hermes"),
        ("[TOOL_CALLS]", "mistral"),
        ("[TOOL_CALLS] [", "mistral-v3"),
        ("<|python_tag|>", "llama3"),
        ('{"name": function name, "parameters": dictionary of argument name and its value}', "llama3"),
        ("<|tool_call|>", "granite"),
        ("<|tool_call|> <|/tool_call|>", "phi4"),
    ],
)
def test_the_format_is_told_from_the_template(mark: str, name: str) -> None:
    assert native_format(marked(mark)) is FORMATS[name]
    assert native_format(marked(mark, "xml_tools")) is FORMATS[name]
    assert native_format(marked(mark, "messages")) is None  # the template would not say what tools there are
    prompting = tool_prompting(marked(mark), None)
    assert (prompting.form, prompting.native) == (FORMATS[name], True)


def test_models_that_were_taught_none_get_hermes_unless_a_recipe_says_otherwise() -> None:
    plain = ChatTemplate(template("smollm2"), SPECIAL_TOKENS)
    assert (tool_prompting(plain, None).form.name, tool_prompting(plain, None).native) == ("hermes", False)
    assert (tool_prompting(plain, "smollm2").form.name, tool_prompting(plain, "smollm2").native) == ("smollm2", False)
    gemma = tool_prompting(ChatTemplate(template("turns"), SPECIAL_TOKENS), None)
    assert (gemma.form.name, gemma.native) == ("gemma", False)
    assert gemma.form.call_text("f", "{}") == '{"name": "f", "parameters": {}}'
    assert tool_prompting(marked("unknown marks"), None).native is False
    assert tool_prompting(marked("<tool_call>"), "mistral").form.name == "mistral"


def test_the_template_writes_tools_calls_and_results_itself() -> None:
    chatml = ChatTemplate(template("chatml_tools"), SPECIAL_TOKENS)
    form = tool_prompting(chatml, None).form
    text = chatml.render(native_messages(CHAT, form), **template_arguments(chatml, [TOOL]))
    assert json.dumps(TOOL) in text
    assert text.count('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Kisumu"}}\n</tool_call>') == 2
    assert "21" in text
    assert "22" in text


def test_smollm3_wants_its_tools_under_another_name() -> None:
    assert template_arguments(marked("<tool_call>", "xml_tools"), [TOOL]) == {"xml_tools": [TOOL["function"]]}


def test_mistral_gets_ids_of_nine_letters() -> None:
    form = FORMATS["mistral"]
    native = native_messages(CHAT, form)
    made = native[2]["tool_calls"][0]["id"]
    assert len(made) == 9
    assert made.isalnum()
    assert native[3]["tool_call_id"] == made
    assert call_id("abcdefghi", form) == "abcdefghi"
    assert native_messages(CHAT, FORMATS["hermes"])[3]["tool_call_id"] == "c1"


def test_arguments_that_are_no_json_stay_text() -> None:
    call = {**CALL, "function": {"name": "f", "arguments": "oops {"}}
    (turn,) = native_messages([{"role": "assistant", "content": None, "tool_calls": [call]}], FORMATS["hermes"])
    assert turn["tool_calls"][0]["function"]["arguments"] == "oops {"
    assert turn["content"] == ""


def test_as_text_there_are_three_roles_and_turns_alternate() -> None:
    turns = plain_messages(CHAT, [TOOL], FORMATS["hermes"])
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0]["content"].startswith("Be short.\n\n# Tools")
    assert json.dumps(TOOL) in turns[0]["content"]
    assert '{"name": "<name>", "arguments": <arguments>}' in turns[0]["content"]
    called = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Kisumu"}}\n</tool_call>'
    assert turns[2]["content"] == f"{called}\n{called}"
    assert turns[3]["content"] == "<tool_response>\n21\n</tool_response>\n<tool_response>\n22\n</tool_response>"


def test_without_system_messages_the_description_leads_the_first_turn() -> None:
    turns = plain_messages(CHAT, [TOOL], FORMATS["hermes"], system=False)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"].startswith("Be short.")
    assert turns[0]["content"].endswith("\n\nWeather?")
    assert ChatTemplate(template("turns"), SPECIAL_TOKENS).render(turns)


def test_a_history_with_calls_but_no_tools_needs_no_description() -> None:
    turns = plain_messages(CHAT[1:], [], FORMATS["hermes"])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
