"""Thoughts are told from answers, however the reply is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.text.reasoning import FORMATS, ReasoningParser, Thinking, reasoning_format, thinking_at
from edgeai.text.tool_calls.detect import FORMATS as CALL_FORMATS
from edgeai.text.tool_calls.events import PlainParser, merged
from tests.fixtures.chats import template
from tests.fixtures.replies import parsed, pieces_of, put_together

THINK = FORMATS[0]
PARTS = st.text(alphabet="ab <think>/\n", max_size=25).filter(
    lambda text: "<think>" not in text and "</think>" not in text
)


def parser(thinking: Thinking) -> ReasoningParser:
    return ReasoningParser(THINK, thinking, PlainParser())


@settings(max_examples=300)
@given(PARTS, PARTS, st.booleans(), st.lists(st.integers(0, 80), max_size=8))
def test_thoughts_and_answer(thought: str, answer: str, opened: bool, cuts: list[int]) -> None:
    text = ("" if opened else "<think>") + f"{thought}</think>{answer}"
    start = parser(Thinking.OPEN if opened else Thinking.POSSIBLE)
    thoughts, shown, _ = put_together(parsed(start, pieces_of(text, cuts)))
    assert thoughts == thought.strip(" \n")
    assert shown == answer.lstrip(" \n")


@settings(max_examples=300)
@given(
    st.sampled_from(Thinking), st.text(alphabet="ab<think>/\n ", max_size=50), st.lists(st.integers(0, 50), max_size=6)
)
def test_events_do_not_depend_on_the_cuts(thinking: Thinking, text: str, cuts: list[int]) -> None:
    text = text.replace("ab", "<think>").replace("ba", "</think>")
    whole = list(merged(parsed(parser(thinking), [text])))
    assert list(merged(parsed(parser(thinking), pieces_of(text, cuts)))) == whole


@settings(max_examples=100)
@given(PARTS)
def test_a_reply_without_thoughts_is_as_it_was(answer: str) -> None:
    for thinking in (Thinking.POSSIBLE, Thinking.OVER):
        assert put_together(parsed(parser(thinking), list(answer))) == ("", answer, [])


def test_a_reply_that_ends_within_its_thoughts() -> None:
    assert put_together(parsed(parser(Thinking.OPEN), ["I wonder</thi"], cut=True)) == ("I wonder", "", [])
    assert put_together(parsed(parser(Thinking.OPEN), ["I wonder</thi"])) == ("I wonder</thi", "", [])
    assert put_together(parsed(parser(Thinking.POSSIBLE), ["<thi"], cut=True)) == ("", "", [])


def test_calls_behind_thoughts() -> None:
    text = '<think>\nWhat now?\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    both = ReasoningParser(THINK, Thinking.POSSIBLE, CALL_FORMATS["hermes"].parser())
    assert put_together(parsed(both, list(text))) == ("What now?", "", [("f", "{}")])


@pytest.mark.parametrize(
    ("end", "thinking"),
    [
        ("<|im_start|>assistant\n<think>\n", Thinking.OPEN),
        ("<|im_start|>assistant\n", Thinking.POSSIBLE),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", Thinking.OVER),
    ],
)
def test_the_prompt_tells_whether_thoughts_follow(end: str, thinking: Thinking) -> None:
    assert thinking_at(end, THINK) is thinking


def test_thinking_models_are_known_by_their_templates() -> None:
    assert reasoning_format(template("thinking")) is THINK
    assert reasoning_format("{{ '[THINK]' }}") is FORMATS[1]
    assert reasoning_format(template("smollm2")) is None
