"""Parsers of all formats: what models wrote, however it is cut, and nothing of a marker as text."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.recipe import ToolFormat
from edgeai.text.tool_calls.detect import FORMATS
from edgeai.text.tool_calls.events import Text, merged
from edgeai.text.tool_calls.json_format import JsonFormat
from tests.fixtures.replies import CALLS, WORDS, Call, parsed, pieces_of, put_together, reply

ALL = st.sampled_from(sorted(FORMATS))
WEATHER = {"city": "Kisumu", "days": [1, 2], "note": 'a "b" {c}'}


@settings(max_examples=300)
@given(ALL, WORDS, CALLS, st.sampled_from([None, 2]), st.lists(st.integers(0, 300), max_size=12))
def test_calls_are_found_however_they_are_cut(
    name: str, before: str, calls: list[Call], indent: int | None, cuts: list[int]
) -> None:
    form = FORMATS[name]
    if form.bare and before.lstrip().startswith("{"):
        before = ""
    text = reply(form, before, calls, indent=indent)
    _, shown, found = put_together(parsed(form.parser(), pieces_of(text, cuts)))
    assert shown == before.rstrip(" \t\r\n")
    assert [(called, json.loads(arguments)) for called, arguments in found] == calls


@settings(max_examples=300)
@given(
    ALL, st.text(alphabet='ab <>/tol_cals[]{}",:;|\n\\TOLCAS', max_size=60), st.lists(st.integers(0, 60), max_size=8)
)
def test_events_do_not_depend_on_the_cuts(name: str, text: str, cuts: list[int]) -> None:
    """Not even for what is no reply at all, with markers in all states of completeness."""
    form = FORMATS[name]
    text = text.replace("toll", form.begin).replace("cola", form.end).replace("ab", '{"name": "f", "arguments": {')
    whole = list(merged(parsed(form.parser(), [text])))
    assert list(merged(parsed(form.parser(), pieces_of(text, cuts)))) == whole
    assert list(merged(parsed(form.parser(), list(text)))) == whole


@settings(max_examples=200)
@given(ALL, st.text(alphabet="ab <tol_c>[]|/\n{", max_size=40))
def test_plain_text_comes_out_as_it_went_in(name: str, text: str) -> None:
    form = FORMATS[name]
    if form.begin in text or (form.bare and text.lstrip().startswith("{")):
        return
    assert put_together(parsed(form.parser(), list(text))) == ("", text, [])


@settings(max_examples=200)
@given(ALL, WORDS, CALLS, st.integers(0, 200))
def test_a_reply_that_is_cut_short_shows_no_marker(name: str, before: str, calls: list[Call], length: int) -> None:
    form = FORMATS[name]
    if form.bare and before.lstrip().startswith("{"):
        before = ""
    whole = reply(form, before, calls)
    events = parsed(form.parser(), list(whole[:length]), cut=True)
    _, shown, found = put_together(events)
    assert before.startswith(shown) or shown == before[:length]
    for (called, arguments), (expected, given_arguments) in zip(found, calls, strict=False):
        assert called == expected
        assert json.dumps(given_arguments).startswith(arguments) or arguments == json.dumps(given_arguments)


def test_recipes_may_name_just_these() -> None:
    assert set(get_args(ToolFormat)) == FORMATS.keys()


def test_arguments_come_while_they_are_written() -> None:
    parser = FORMATS["hermes"].parser()
    parser.push('<tool_call>\n{"name": "f", "arguments": {"city": "')
    assert [event.text for event in parser.push("Kis")] == list("Kis")  # type: ignore[union-attr]


def found(form: JsonFormat, text: str) -> list[tuple[str, str]]:
    return put_together(parsed(form.parser(), [text]))[2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>'),  # in the other order
        ("hermes", '<tool_call>\n[{"name": "f", "arguments": {"a": 1}}]\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "f", "parameters": {"a": 1}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}\n</tool_call>'),  # JSON within JSON
        ("hermes", '<tool_call>\n{"id": 7, "name": "f", "arguments": {"a": 1}, "x": null}\n</tool_call>'),
        ("smollm2", '<tool_call>[{"name": "f", "arguments": {"a": 1}}]</tool_call>'),
        ("llama3", '{"name": "f", "parameters": {"a": 1}}'),
        ("llama3", '\n {"type": "function", "name": "f", "parameters": {"a": 1}}'),
        ("llama3", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}'),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]'),
        ("mistral-v3", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]'),
        ("granite", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]'),
        ("phi4", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|/tool_call|>'),
        ("phi4", '<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|>'),
    ],
)
def test_ways_of_models(name: str, text: str) -> None:
    assert found(FORMATS[name], text) == [("f", '{"a": 1}')]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert found(FORMATS["hermes"], '<tool_call>{"name": "f"}</tool_call>') == [("f", "{}")]
    assert found(FORMATS["hermes"], '<tool_call>{"name": "f", "arguments": null}</tool_call>') == [("f", "{}")]


@pytest.mark.parametrize(
    "text",
    [
        "Put it into <tool_call> tags.",
        "<tool_call></tool_call>",
        '<tool_call>{"city": "Kisumu"}</tool_call>'.replace("<tool_call>", "").replace("</tool_call>", ""),
        "<tool_call>",
        "a <b> c <tool",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert put_together(parsed(FORMATS["hermes"].parser(), list(text))) == ("", text, [])


def test_a_line_end_behind_a_call_is_no_text() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
    assert put_together(parsed(FORMATS["hermes"].parser(), list(text))) == ("", "", [("f", "{}")])


def test_an_object_that_is_no_call_is_text() -> None:
    events = parsed(FORMATS["llama3"].parser(), list('{"city": "Kisumu"}'))
    assert list(merged(events)) == [Text('{"city": "Kisumu"}')]
