"""Thoughts of thinking models, told apart from their answers by the marks that they put around them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from edgeai.text.tool_calls.events import Event, Parser, Reasoning, held_prefix

SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """The marks around thoughts."""

    begin: str
    end: str


FORMATS = (ReasoningFormat("<think>", "</think>"), ReasoningFormat("[THINK]", "[/THINK]"))


class Thinking(Enum):
    """Whether a reply begins with thoughts."""

    OPEN = auto()  # the prompt ends behind the begin mark
    POSSIBLE = auto()
    OVER = auto()  # thinking was switched off


def reasoning_format(template: str) -> ReasoningFormat | None:
    """The marks of a chat template; None for models that do not think."""
    return next((form for form in FORMATS if form.begin in template or form.end in template), None)


def thinking_at(prompt_end: str, form: ReasoningFormat) -> Thinking:
    """What the end of a rendered prompt says of the reply that follows."""
    end = prompt_end.rstrip(SPACE)
    if end.endswith(form.begin):
        return Thinking.OPEN
    return Thinking.OVER if end.endswith(form.end) else Thinking.POSSIBLE


class ReasoningParser:
    """Takes thoughts off the beginning of a reply; the rest is for `answer`. Space around the marks is dropped."""

    def __init__(self, form: ReasoningFormat, thinking: Thinking, answer: Parser) -> None:
        self._form = form
        self._thinking = thinking
        self._answer = answer
        self._held = ""
        self._shown = False  # whether any thought was

    def push(self, text: str) -> list[Event]:
        text, self._held = self._held + text, ""
        if self._thinking is Thinking.POSSIBLE:
            text = self._begin(text)
        if self._thinking is Thinking.OPEN:
            return self._think(text)
        return self._answer.push(text) if self._thinking is Thinking.OVER else []

    def finish(self, *, cut: bool = False) -> list[Event]:
        held, self._held = self._held, ""
        if self._thinking is Thinking.OPEN:
            kept = held[: len(held) - held_prefix(held, [self._form.end])] if cut else held
            return [Reasoning(kept.rstrip(SPACE))] if kept.strip(SPACE) else []
        if cut and held_prefix(held, [self._form.begin]):
            held = ""
        return self._answer.push(held) + self._answer.finish(cut=cut)

    def _begin(self, text: str) -> str:
        """Decide whether there are thoughts, if that can be said; returns the text behind the mark."""
        begun = text.lstrip(SPACE)
        if begun.startswith(self._form.begin):
            self._thinking = Thinking.OPEN
            return begun.removeprefix(self._form.begin)
        if begun and not self._form.begin.startswith(begun):
            self._thinking = Thinking.OVER
            return text
        self._held = text
        return ""

    def _think(self, text: str) -> list[Event]:
        if not self._shown:
            text = text.lstrip(SPACE)
        at = text.find(self._form.end)
        if at < 0:
            shown = text[: len(text) - held_prefix(text, [self._form.end])].rstrip(SPACE)
            self._held = text[len(shown) :]
            return self._thought(shown)
        self._thinking = Thinking.OVER
        self._answer = _WithoutLeadingSpace(self._answer)
        return self._thought(text[:at].rstrip(SPACE)) + self._answer.push(text[at + len(self._form.end) :])

    def _thought(self, text: str) -> list[Event]:
        self._shown = self._shown or bool(text)
        return [Reasoning(text)] if text else []


class _WithoutLeadingSpace:
    """A parser of a reply whose space at the beginning counts for nothing."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._begun = False

    def push(self, text: str) -> list[Event]:
        if not self._begun:
            text = text.lstrip(SPACE)
            self._begun = bool(text)
        return self._parser.push(text)

    def finish(self, *, cut: bool = False) -> list[Event]:
        return self._parser.finish(cut=cut)
