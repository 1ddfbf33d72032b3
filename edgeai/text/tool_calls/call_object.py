"""One call as a JSON object, ``{"name": ..., "arguments": {...}}``, read character by character.

Arguments are passed on as they come, as soon as the name is known. Those that are a string with JSON in it, as some
models write them, are passed on as that JSON when they are complete.
"""

from __future__ import annotations

import json
from enum import Enum, auto

from edgeai.text.tool_calls.events import Arguments, CallStart, Event, Text

ARGUMENT_KEYS = ("arguments", "parameters")
SPACE = " \t\r\n"


class _At(Enum):
    KEY = auto()  # before a key, or the end
    IN_KEY = auto()
    COLON = auto()
    VALUE = auto()  # before a value
    IN_VALUE = auto()
    NEXT = auto()  # behind a value


class CallObject:
    """An object behind its first brace. What is no call becomes text when it has ended."""

    def __init__(self) -> None:
        self.complete = False
        self._raw = "{"
        self._at = _At.KEY
        self._part = ""  # of the key or value that is being read
        self._key = ""
        self._nested = 0  # brackets that are open within the value
        self._in_string = self._escaped = False
        self._name: str | None = None
        self._waiting = ""  # arguments that came before the name
        self._passed = False  # whether there were any

    def push(self, character: str) -> list[Event]:
        """What this character makes certain. Nothing may follow the one that completes the object."""
        self._raw += character
        return self._in_value(character) if self._at is _At.IN_VALUE else self._between(character)

    def _between(self, character: str) -> list[Event]:
        if self._at is _At.IN_KEY:
            self._part += character
            self._follow(character)
            if not self._in_string:
                self._key, self._at = _text(self._part), _At.COLON
            return []
        if character in SPACE:
            return []
        match self._at, character:
            case (_At.KEY, '"'):
                self._at, self._part, self._in_string = _At.IN_KEY, character, True
            case (_At.COLON, ":"):
                self._at = _At.VALUE
            case (_At.NEXT, ","):
                self._at = _At.KEY
            case (_At.KEY | _At.NEXT, "}"):
                return self._end()
            case (_At.VALUE, _) if character not in ",:}]":
                self._at, self._part = _At.IN_VALUE, ""
                return self._in_value(character)
            case _:
                return self._malformed()
        return []

    def _in_value(self, character: str) -> list[Event]:
        plain = self._part[:1] not in ("", '"', "{", "[")  # a number or a word, which ends with what follows it
        if plain and character in ",}" + SPACE:
            return self._value_ends() + self._between(character)
        self._part += character
        self._follow(character)
        streamed = self._key in ARGUMENT_KEYS and self._part[0] == "{"
        events = self._arguments(character) if streamed else []
        if not self._in_string and not self._nested and self._part[0] in '"{[':
            events += self._value_ends()
        return events

    def _follow(self, character: str) -> None:
        """Keep track of strings and brackets."""
        if self._in_string:
            self._in_string = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
        elif character == '"':
            self._in_string = True
        else:
            self._nested += (character in "{[") - (character in "}]")

    def _value_ends(self) -> list[Event]:
        self._at = _At.NEXT
        if self._key == "name" and self._part.startswith('"') and self._name is None:
            self._name = _text(self._part)
            waiting, self._waiting = self._waiting, ""
            return [CallStart(self._name), *([Arguments(waiting)] if waiting else [])]
        if self._key in ARGUMENT_KEYS and self._part.startswith('"'):
            return self._arguments(_text(self._part))
        return []

    def _arguments(self, text: str) -> list[Event]:
        self._passed = True
        if self._name is None:
            self._waiting += text
            return []
        return [Arguments(text)] if text else []

    def _end(self) -> list[Event]:
        self.complete = True
        if self._name is None:
            return [Text(self._raw)]
        return [] if self._passed else [Arguments("{}")]

    def _malformed(self) -> list[Event]:
        self.complete = True
        return [Text(self._raw)] if self._name is None else []


def _text(written: str) -> str:
    """What a JSON string says; of one that is not valid the characters."""
    try:
        return str(json.loads(written, strict=False))
    except ValueError:
        return written[1:-1]
