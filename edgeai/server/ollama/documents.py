"""The documents of Ollama's answers: who answered, when, what was written, and how long everything took."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edgeai.server.generation import Usage

NANOSECONDS = 1_000_000_000


def now() -> str:
    """The time as Ollama writes it."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(slots=True)
class Stopwatch:
    """When a request came, when its model was there, when its first token was; seconds of the same clock."""

    arrived: float = field(default_factory=time.perf_counter)
    loaded: float = 0.0
    first: float = 0.0

    def model_is_there(self) -> None:
        """Loading, or waiting for it, is over."""
        self.loaded = time.perf_counter()

    def token(self) -> None:
        """A token has come."""
        self.first = self.first or time.perf_counter()

    def durations(self, usage: Usage) -> dict[str, int]:
        """The fields of a last document, in nanoseconds and tokens."""
        end = time.perf_counter()
        first = self.first or end
        return {
            "total_duration": _nanoseconds(end - self.arrived),
            "load_duration": _nanoseconds(self.loaded - self.arrived),
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": _nanoseconds(first - self.loaded),
            "eval_count": usage.completion,
            "eval_duration": _nanoseconds(end - first),
        }


def _nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * NANOSECONDS))  # some clients divide by it


@dataclass(slots=True)
class Calls:
    """Tool calls that come in pieces and are told whole: Ollama's arguments are objects."""

    _open: list[tuple[str, str]] = field(default_factory=list)

    def push(self, delta: dict[str, Any]) -> None:
        """Add the pieces of a delta in OpenAI's words."""
        for call in delta.get("tool_calls", ()):
            function = call["function"]
            if "name" in function:
                self._open.append((function["name"], ""))
            name, arguments = self._open.pop()
            self._open.append((name, arguments + function.get("arguments", "")))

    def take(self) -> list[dict[str, Any]]:
        """The calls so far, which are complete."""
        taken, self._open = self._open, []
        return [_call(number, *call) for number, call in enumerate(taken)]


def _call(number: int, name: str, text: str) -> dict[str, Any]:
    """A call that was cut short has the text of its arguments in place of an object."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        arguments = {"incomplete": text}
    return {"function": {"index": number, "name": name, "arguments": arguments}}
