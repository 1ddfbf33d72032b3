"""What a reply consists of, in the API's words: deltas of a stream, and the message that they add up to."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Iterator
from typing import Any

from edgeai.engine.request import FinishReason
from edgeai.text.tool_calls.events import Arguments, CallStart, Event, Parser, Reasoning, Text, merged

Delta = dict[str, Any]
ID_LETTERS = string.ascii_letters + string.digits
ID_LENGTH = 9  # what Mistral's templates take; any other client takes it too


class ReplyDeltas:
    """Takes one choice's chunks apart."""

    def __init__(self, parser: Parser, *, legacy: bool = False) -> None:
        self._parser = parser
        self._legacy = legacy
        self._calls = 0

    def push(self, text: str, finish_reason: FinishReason | None) -> list[Delta]:
        """The deltas that are certain with this text; all of them, with the reason of the end."""
        return [self._delta(event) for event in reply_events(self._parser, text, finish_reason)]

    def finish_reason(self, reason: FinishReason | None) -> str | None:
        """As the API has it: an end behind a call is one of its own."""
        if reason is FinishReason.STOP and self._calls:
            return "function_call" if self._legacy else "tool_calls"
        return reason

    def _delta(self, event: Event) -> Delta:
        match event:
            case Text(text):
                return {"content": text}
            case Reasoning(text):
                return {"reasoning_content": text, "reasoning": text}
            case CallStart(name):
                self._calls += 1
                return self._call({"name": name, "arguments": ""}, {"id": new_id(), "type": "function"})
            case Arguments(text):
                return self._call({"arguments": text}, {})

    def _call(self, function: dict[str, str], head: dict[str, str]) -> Delta:
        if self._legacy:
            return {"function_call": function}
        return {"tool_calls": [{"index": self._calls - 1, **head, "function": function}]}


def reply_events(parser: Parser, text: str, finish_reason: FinishReason | None) -> Iterator[Event]:
    """What the parser makes of one more chunk, pieces of the same kind put together."""
    events = parser.push(text)
    if finish_reason is not None:
        events += parser.finish(cut=finish_reason is FinishReason.LENGTH)
    return merged(events)


def new_id() -> str:
    """An id for a call."""
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def message_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """The message that deltas add up to. Content is null where there is nothing but calls."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        for field in ("content", "reasoning_content", "reasoning"):
            if field in delta:
                message[field] = message.get(field, "") + delta[field]
        for call in delta.get("tool_calls", ()):
            _add_call(calls, call)
        if "function_call" in delta:
            made = message.setdefault("function_call", {"name": "", "arguments": ""})
            _add(made, delta["function_call"])
    if calls:
        message["tool_calls"] = calls
    if not message["content"] and (calls or "function_call" in message):
        message["content"] = None
    return message


def _add_call(calls: list[dict[str, Any]], call: dict[str, Any]) -> None:
    if "id" in call:
        calls.append({"id": call["id"], "type": call["type"], "function": {"name": "", "arguments": ""}})
    _add(calls[-1]["function"], call["function"])


def _add(function: dict[str, str], more: dict[str, str]) -> None:
    for field, text in more.items():
        function[field] += text
