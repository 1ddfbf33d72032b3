"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.errors import InvalidInput
from edgeai.server.generation import Generation, Usage, plan
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai.answer import Choice, answer, head
from edgeai.server.openai.logprobs import ShownTokens, chat_logprobs
from edgeai.server.openai.sampling import check_stream_options, encode, sampling_params
from edgeai.server.openai.structured import compiled, requested_grammar
from edgeai.server.openai.terms import terms_of
from edgeai.server.protocol import ChatRequest, Message

if TYPE_CHECKING:
    from edgeai.engine.request import TokenOutput
    from edgeai.model import AsyncModel, Chunk


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=None)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        terms = terms_of(request, body)
        model = await models.find(body.model)
        check_supported(body)
        reply = ChatReply(model, logprobs=bool(body.logprobs), include_usage=check_stream_options(body))
        prompt = await encode_messages(model, body.messages)
        params = sampling_params(
            model,
            body,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=await compiled(model, requested_grammar(body)),
        )
        jobs = plan([prompt], params, body.stop, body.n or 1)
        generation = Generation(model, jobs, metrics.of_model(model.name), arrived=arrived, terms=terms)
        return await answer(request, generation, reply, stream=bool(body.stream), choices=len(jobs))

    return routes


def check_supported(body: ChatRequest) -> None:
    """Refuse by name what would change the answer but is not there yet. Raises `InvalidInput`."""
    if body.tools:
        raise InvalidInput("tools are not supported", "leave them out", param="tools")
    if body.functions:
        raise InvalidInput("functions are not supported", "leave them out", param="functions")
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidInput("top_logprobs needs logprobs to be true", param="top_logprobs")
    for number, message in enumerate(body.messages):
        _check_message(number, message)


def _check_message(number: int, message: Message) -> None:
    where = f"messages[{number}]"
    if message.role in ("tool", "function") or message.tool_calls:
        raise InvalidInput("tool calls are not supported", "leave them out", param=f"{where}.role")
    if message.content is None:
        raise InvalidInput("the message has no content", param=f"{where}.content")


async def encode_messages(model: AsyncModel, messages: list[Message]) -> list[int]:
    """The prompt's token ids. Raises `InvalidInput` with the template's words if it refuses the messages."""
    turns = [{"role": _role(message), "content": message.content} for message in messages]
    characters = sum(len(message.content or "") for message in messages)
    return await encode(lambda: model.encode_chat(turns), characters)


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role  # a newer name that templates do not know


class ChatReply:
    """Writes a generation as chat completion, whole or in chunks."""

    def __init__(self, model: AsyncModel, *, logprobs: bool, include_usage: bool) -> None:
        self._tokenizer = model.tokenizer
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._head = head("chat.completion.chunk", "chatcmpl", model)
        self._shown = defaultdict[int, ShownTokens](ShownTokens)

    def events(self, choice: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The role first, then text, then the reason of the end."""
        if choice not in self._shown:
            yield self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})
        logprobs = self._token_logprobs(self._shown[choice].push(chunk))
        if chunk.text or (logprobs and logprobs["content"]):
            yield self._chunk(choice, {"content": chunk.text}, logprobs=logprobs)
        if chunk.finish_reason is not None:
            yield self._chunk(choice, {}, finish_reason=chunk.finish_reason.value)

    def closing(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """The usage, if the client asked for it."""
        if self._include_usage:
            yield {**self._head, "choices": [], "usage": usage.as_dict()}

    def whole(self, choices: list[Choice], usage: Usage) -> dict[str, Any]:
        """The answer that is not streamed."""
        written = [self._choice(number, choice) for number, choice in enumerate(choices)]
        return {**self._head, "object": "chat.completion", "choices": written, "usage": usage.as_dict()}

    def _choice(self, number: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": number,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._token_logprobs(choice.tokens),
            "finish_reason": choice.finish_reason,
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
