"""A chat completion as it is written, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from edgeai.server.generation import Usage
from edgeai.server.openai.answer import Choice, head
from edgeai.server.openai.deltas import ReplyDeltas, message_of
from edgeai.server.openai.logprobs import ShownTokens, chat_logprobs

if TYPE_CHECKING:
    from edgeai.engine.request import TokenOutput
    from edgeai.model import AsyncModel, Chunk


class ChatReply:
    """Writes a generation as chat completion; `deltas` takes one choice's text apart."""

    def __init__(
        self, model: AsyncModel, deltas: Callable[[], ReplyDeltas], *, logprobs: bool, include_usage: bool
    ) -> None:
        self._tokenizer = model.tokenizer
        self._deltas = deltas
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._head = head("chat.completion.chunk", "chatcmpl", model)
        self._started: dict[int, tuple[ReplyDeltas, ShownTokens]] = {}

    def events(self, choice: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The role first, then what the reply consists of, then the reason of the end."""
        if choice not in self._started:
            self._started[choice] = self._deltas(), ShownTokens()
            yield self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})
        deltas, shown = self._started[choice]
        logprobs = self._token_logprobs(shown.push(chunk))
        found = deltas.push(chunk.text, chunk.finish_reason)
        if not found and logprobs and logprobs["content"]:
            found = [{"content": ""}]
        for number, delta in enumerate(found):
            yield self._chunk(choice, delta, logprobs=logprobs if number == 0 else None)
        if chunk.finish_reason is not None:
            yield self._chunk(choice, {}, finish_reason=deltas.finish_reason(chunk.finish_reason))

    def closing(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """The usage, if the client asked for it."""
        if self._include_usage:
            yield {**self._head, "choices": [], "usage": usage.as_dict()}

    def whole(self, choices: list[Choice], usage: Usage) -> dict[str, Any]:
        """The answer that is not streamed."""
        written = [self._choice(number, choice) for number, choice in enumerate(choices)]
        return {**self._head, "object": "chat.completion", "choices": written, "usage": usage.as_dict()}

    def _choice(self, number: int, choice: Choice) -> dict[str, Any]:
        deltas = self._deltas()
        message = message_of(deltas.push(choice.text, choice.finish_reason))
        return {
            "index": number,
            "message": message,
            "logprobs": self._token_logprobs(choice.tokens),
            "finish_reason": deltas.finish_reason(choice.finish_reason),
        }

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        entry = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return {**self._head, "choices": [entry], **usage}

    def _token_logprobs(self, tokens: Iterable[TokenOutput]) -> dict[str, Any] | None:
        return chat_logprobs(self._tokenizer, tokens) if self._logprobs else None
