"""The output of a response as it grows: items, and the events that tell of every change."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgeai.server.openai.deltas import new_id
from edgeai.text.tool_calls.events import Arguments, CallStart, Event, Reasoning, Text

Json = dict[str, Any]

_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_EMPTY: dict[str, Json] = {
    "message": {"type": "message", "role": "assistant", "content": []},
    "reasoning": {"type": "reasoning", "summary": [], "content": []},
}
_PARTS: dict[str, Json] = {
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "reasoning": {"type": "reasoning_text", "text": ""},
}


def new_item_id(prefix: str) -> str:
    """An id as OpenAI's are."""
    return f"{prefix}_{secrets.token_hex(12)}"


class OutputItems:
    """Messages, thoughts and calls in their order; the last one may still grow."""

    def __init__(self, event: Callable[..., Json]) -> None:
        """`event` makes an event of its name and fields."""
        self.items: list[Json] = []
        self._event = event
        self._open = False

    @property
    def thinking(self) -> bool:
        """Whether the newest item is thoughts."""
        return self._open and bool(self.items[-1]["type"] == "reasoning")

    def push(self, event: Event, logprobs: Sequence[Json] = ()) -> Iterator[Json]:
        """One more piece of the reply; `logprobs` are those of a text's tokens."""
        match event:
            case Text(text):
                yield from self._text("message", text, logprobs)
            case Reasoning(text):
                yield from self._text("reasoning", text)
            case CallStart(name):
                yield from self._begin({"type": "function_call", "call_id": new_id(), "name": name, "arguments": ""})
            case Arguments(text):
                self.items[-1]["arguments"] += text
                yield self._about("response.function_call_arguments.delta", delta=text)

    def close(self, status: str = "completed") -> Iterator[Json]:
        """The newest item is as it will stay."""
        if not self._open:
            return
        self._open = False
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "function_call":
            yield self._about("response.function_call_arguments.done", name=item["name"], arguments=item["arguments"])
        else:
            part = item["content"][0]
            said = {name: value for name, value in part.items() if name in ("text", "logprobs")}
            yield self._about(f"response.{part['type']}.done", content_index=0, **said)
            yield self._about("response.content_part.done", content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=self._index, item=item)

    def _text(self, kind: str, text: str, logprobs: Sequence[Json] = ()) -> Iterator[Json]:
        """More of a message or of thoughts, each of which has one part."""
        if not self._open or self.items[-1]["type"] != kind:
            yield from self._begin(copy.deepcopy(_EMPTY[kind]))
            part = copy.deepcopy(_PARTS[kind])
            yield self._about("response.content_part.added", content_index=0, part=copy.deepcopy(part))
            self.items[-1]["content"].append(part)
        part = self.items[-1]["content"][0]
        part["text"] += text
        more = {}
        if "logprobs" in part:
            part["logprobs"] += logprobs
            more = {"logprobs": list(logprobs)}
        yield self._about(f"response.{part['type']}.delta", content_index=0, delta=text, **more)

    def _begin(self, item: Json) -> Iterator[Json]:
        yield from self.close()
        self._open = True
        self.items.append({"id": new_item_id(_PREFIXES[item["type"]]), **item, "status": "in_progress"})
        yield self._event("response.output_item.added", output_index=self._index, item=copy.deepcopy(self.items[-1]))

    @property
    def _index(self) -> int:
        return len(self.items) - 1

    def _about(self, event: str, /, **fields: Any) -> Json:
        return self._event(event, item_id=self.items[-1]["id"], output_index=self._index, **fields)
