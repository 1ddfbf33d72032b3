"""Formats whose calls are JSON objects: what stands around the objects differs, and little else.

Each format is a `JsonFormat` in a module of its own; the parser and the grammar follow from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeai.text.tool_calls.call_object import SPACE, CallObject
from edgeai.text.tool_calls.events import Event, Parser, Text, held_prefix

Symbol = Callable[[str], str | None]  # a marker as a token of its own in Lark, where it is a control token

MAX_CALLS = 16  # in one reply: small models find no end
_ANY = r"(.|\n)*"
_NO_OBJECT = r"([^{ \t\r\n](.|\n)*)?"  # text that does not begin as a call does
_REST = f"{{0,{MAX_CALLS - 1}}}"


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """How calls are written: ``begin before call after end``, or a list of calls in one such group."""

    name: str
    begin: str
    end: str = ""
    before: str = ""
    after: str = ""
    arguments: str = "arguments"
    listed: bool = False  # calls stand in one JSON list
    separator: str = "\n"  # between groups, or, without an end marker, between the calls of the one group
    bare: bool = False  # `begin` may be missing where the reply begins with a call

    @property
    def markers(self) -> tuple[str, ...]:
        """What may be control tokens, which are not shown elsewhere."""
        return tuple(marker for marker in (self.begin, self.end) if marker)

    def parser(self) -> Parser:
        """For one reply."""
        return JsonCallParser(self)

    def call_text(self, name: str, arguments: str) -> str:
        """A group of one call, as it is put into prompts; `arguments` is JSON text."""
        call = f"{self._head(name)}{arguments}}}"
        if self.bare:
            return call
        return f"{self.begin}{self.before}{f'[{call}]' if self.listed else call}{self.after}{self.end}"

    def rules(self, names: Sequence[str], symbol: Symbol, *, parallel: bool) -> str:
        """Lark rules `calls`, for a reply of calls only, and `mixed`, for text with calls or without.

        The arguments of tool i are the rule @tool_i.
        """
        calls = [f"call_{i}: {_literal(self._head(name))} @tool_{i} {_literal('}')}" for i, name in enumerate(names)]
        call = "call: " + " | ".join(f"call_{i}" for i in range(len(names)))
        one = bool(self.end) and not self.listed  # one call in a group, and so several groups
        several = "" if one or not parallel else f" ({_literal(', ' if self.listed else self.separator)} call){_REST}"
        opening, closing = self.before + "[" * self.listed, "]" * self.listed + self.after
        body = f"body: {_joined(opening)} call{several} {_joined(closing)} {self._marker(self.end, symbol)}"
        begin = self._marker(self.begin, symbol)
        group = f"group: {begin} body" + (" | body" if self.bare else "")
        more = f" ({_literal(self.separator)} group){_REST}" if one and parallel else ""
        lines = [f"calls: group{more}", group, body, call, *calls, *self._mixed(symbol, repeated=one and parallel)]
        return "\n".join(lines)

    def _mixed(self, symbol: Symbol, *, repeated: bool) -> list[str]:
        """Text in which the begin of a call has to be that of a whole one."""
        special = symbol(self.begin)
        text = _NO_OBJECT if self.bare else _ANY
        if special is None:
            escaped = re.escape(self.begin).replace("/", r"\/")
            opened = [f"opened[lazy]: /{text}{escaped}/", "later: opened body"]
        else:
            opened = [f"later: TEXT {special} body"]
        mixed = "TEXT | later"
        if self.bare:
            mixed += " | calls"
        elif repeated:
            mixed = f"later{{0,{MAX_CALLS}}} TEXT"
        return [f"TEXT: /{text}/", f"mixed: {mixed}", *opened]

    def _head(self, name: str) -> str:
        return f'{{"name": {json.dumps(name)}, {json.dumps(self.arguments)}: '

    def _marker(self, marker: str, symbol: Symbol) -> str:
        return symbol(marker) or _joined(marker)


def _literal(text: str) -> str:
    return json.dumps(text)


def _joined(text: str) -> str:
    return json.dumps(text) if text else ""


class JsonCallParser:
    """Takes apart a reply in a `JsonFormat`."""

    def __init__(self, form: JsonFormat) -> None:
        self._form = form
        self._held = ""  # the end of the text so far: space, or the beginning of a marker
        self._in_group = False
        self._begun = False  # whether anything but space has come
        self._called = False  # whether a call has come
        self._opened = ""  # the begin of a group as it was written, until its first call
        self._object: CallObject | None = None

    def push(self, text: str) -> list[Event]:
        events: list[Event] = []
        rest = self._held + text
        self._held = ""
        while rest:
            before = rest, self._in_group
            if self._object is not None:
                rest = self._call(rest, events)
            elif self._in_group:
                rest = self._between(rest, events)
            else:
                rest = self._text(rest, events)
            if (rest, self._in_group) == before:
                break  # what is left cannot be decided yet
        self._held = rest
        return events

    def finish(self, *, cut: bool = False) -> list[Event]:
        held, self._held = self._held, ""
        if self._object is not None or (self._in_group and cut):
            return []
        held = self._opened + held
        if cut:
            held = held[: len(held) - held_prefix(held, [self._form.begin])]
        if self._called and not held.strip(SPACE):
            return []  # a line end behind the last call
        return [Text(held)] if held else []

    def _text(self, text: str, events: list[Event]) -> str:
        """Show text up to the begin of a group; returns what cannot be decided yet."""
        if self._form.bare and not self._begun and text.lstrip(SPACE)[:1] == "{":
            self._in_group = True
            return text.lstrip(SPACE)
        at = text.find(self._form.begin)
        if at >= 0:
            end = at + len(self._form.begin)
            shown = text[:at].rstrip(SPACE)
            self._show(shown, events)
            self._in_group, self._opened = True, text[len(shown) : end]
            return text[end:]
        shown = text[: len(text) - held_prefix(text, [self._form.begin])].rstrip(SPACE)
        self._show(shown, events)
        return text[len(shown) :]

    def _show(self, text: str, events: list[Event]) -> None:
        self._begun = self._begun or bool(text)
        if text:
            events.append(Text(text))

    def _between(self, text: str, events: list[Event]) -> str:
        """Around the objects of a group."""
        whole, text = text, text.lstrip(SPACE + ",;[]")
        self._opened += whole[: len(whole) - len(text)] if self._opened else ""
        if text.startswith("{"):
            self._object = CallObject()
            self._begun, self._called, self._opened = True, True, ""
            return text[1:]
        for marker in self._form.markers:
            if text.startswith(marker):
                self._in_group = marker == self._form.begin
                self._opened += marker if self._opened else ""
                return self._no_call(text[len(marker) :], events) if not self._in_group else text[len(marker) :]
        if held_prefix(text, self._form.markers) < len(text):
            self._in_group = False  # not what the format says: text again
            return self._no_call(text, events)
        return text

    def _no_call(self, rest: str, events: list[Event]) -> str:
        """Behind a group: one without any call was text."""
        self._show(self._opened, events)
        self._begun, self._opened = True, ""
        return rest

    def _call(self, text: str, events: list[Event]) -> str:
        for at, character in enumerate(text):
            if self._object is None:
                return text[at:]
            events += self._object.push(character)
            if self._object.complete:
                self._object = None
        return ""
