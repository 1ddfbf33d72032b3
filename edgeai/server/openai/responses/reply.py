"""A response as it is written: the events of a stream, of which the last has all of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeai.engine.request import FinishReason
from edgeai.server.generation import Usage
from edgeai.server.openai.deltas import reply_events
from edgeai.server.openai.logprobs import ShownTokens, chat_logprobs
from edgeai.server.openai.responses.items import Json, OutputItems, new_item_id
from edgeai.server.openai.responses.protocol import ResponsesRequest
from edgeai.text.tool_calls.events import Parser, Text

if TYPE_CHECKING:
    from edgeai.engine.request import TokenOutput
    from edgeai.model import AsyncModel, Chunk


class ResponseReply:
    """Writes a generation as a response; `parser` takes its text apart."""

    def __init__(self, model: AsyncModel, body: ResponsesRequest, parser: Parser) -> None:
        self._tokenizer = model.tokenizer if body.wants_logprobs else None
        self._parser = parser
        self._head = _head(model, body)
        self._numbers = itertools.count()
        self._items = OutputItems(self._event)
        self._shown = ShownTokens()
        self._unsaid: list[TokenOutput] = []  # tokens whose text is held back
        self._thought = 0  # tokens
        self._reason: FinishReason | None = None
        self._begun = False

    def events(self, _choice: int, chunk: Chunk) -> Iterator[Json]:
        """What a chunk adds."""
        yield from self._begin()
        thinking = self._items.thinking
        self._unsaid += self._shown.push(chunk)
        for event in reply_events(self._parser, chunk.text, chunk.finish_reason):
            yield from self._items.push(event, self._logprobs(isinstance(event, Text)))
        if thinking or self._items.thinking:
            self._thought += len(chunk.tokens)
        self._reason = chunk.finish_reason
        if self._reason is not None:
            if not self._items.items:
                yield from self._items.push(Text(""))
            yield from self._items.close(self._status)

    def closing(self, usage: Usage) -> Iterator[Json]:
        """The whole response."""
        details = {"reason": "max_output_tokens"} if self._status == "incomplete" else None
        response = self._response(
            self._status, incomplete_details=details, usage=self._usage(usage), completed_at=int(time.time())
        )
        yield self._event(f"response.{self._status}", response=response)

    def failed(self, body: Json) -> Iterator[Json]:
        """What tells of an error that comes when the stream has begun; `body` is that of an error answer."""
        yield from self._begin()
        error = {"code": "server_error", "message": body["error"]["message"]}
        yield self._event("response.failed", response=self._response("failed", error=error))

    def _begin(self) -> Iterator[Json]:
        if not self._begun:
            self._begun = True
            for name in ("response.created", "response.in_progress"):
                yield self._event(name, response=self._response("in_progress"))

    @property
    def _status(self) -> str:
        return "incomplete" if self._reason is FinishReason.LENGTH else "completed"

    def _event(self, event: str, /, **fields: Any) -> Json:
        return {"type": event, "sequence_number": next(self._numbers), **fields}

    def _response(self, status: str, **fields: Any) -> Json:
        return {**self._head, "status": status, "output": list(self._items.items), **fields}

    def _logprobs(self, said: bool) -> list[Json]:
        """Those of the tokens so far, which belong to what is `said`, or else to nothing that is shown."""
        tokens, self._unsaid = self._unsaid, []
        return chat_logprobs(self._tokenizer, tokens)["content"] if said and self._tokenizer is not None else []

    def _usage(self, usage: Usage) -> Json:
        return {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": self._thought},
            "total_tokens": usage.prompt + usage.completion,
        }


def _head(model: AsyncModel, body: ResponsesRequest) -> Json:
    """What a response says before there is anything of it; of the request what OpenAI's API repeats."""
    defaults = model.default_params(temperature=body.temperature, top_p=body.top_p)
    given = body.model_dump(mode="json", by_alias=True, exclude_none=True, include={"text", "tools"})
    return {
        "id": new_item_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "model": model.name,
        "error": None,
        "incomplete_details": None,
        "usage": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
        "text": given.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [_shown_tool(tool) for tool in given.get("tools", ())],
        "temperature": defaults.temperature,
        "top_p": defaults.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "metadata": body.metadata or {},
        "user": body.user,
        "service_tier": body.service_tier or "default",
        "truncation": "disabled",
        "background": False,
        "store": False,
        "previous_response_id": None,
    }


def _shown_tool(tool: Json) -> Json:
    return {"parameters": None, "strict": False, **tool}
