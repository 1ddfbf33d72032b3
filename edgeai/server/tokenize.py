"""`POST /tokenize` and `POST /detokenize`, as vLLM has them: what a prompt is to the model, without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from edgeai.errors import InvalidInput
from edgeai.server.json_response import json_response
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai.chat import encode_chat_prompt
from edgeai.server.openai.logprobs import token_text
from edgeai.server.openai.sampling import encode
from edgeai.server.openai.tools import requested_tools
from edgeai.server.pool.keep_alive import KeepAlive
from edgeai.server.protocol import MAX_TOOLS, ApiModel, ChatRequest, Message
from edgeai.server.tool_protocol import ToolDefinition

if TYPE_CHECKING:
    from edgeai.model import AsyncModel


class TokenizeRequest(ApiModel):
    """Body of `POST /tokenize`: a text or a chat. `add_special_tokens` is for texts; templates have their own."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


class DetokenizeRequest(ApiModel):
    """Body of `POST /detokenize`."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]]
    keep_alive: KeepAlive = None


def router(models: ModelPool) -> APIRouter:
    """The endpoints over the language models of `models`."""
    routes = APIRouter()

    @routes.post("/tokenize", response_model=None)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        model = await models.find(body.model, request, body.keep_alive)
        ids = await token_ids(model, body)
        strings = bool(body.return_token_strs)
        return await asyncio.to_thread(_tokens, model, ids, strings=strings)

    @routes.post("/detokenize", response_model=None)
    async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
        model = await models.find(body.model, request, body.keep_alive)
        size = model.tokenizer.vocab_size
        if body.tokens and max(body.tokens) >= size:
            raise InvalidInput(f"token {max(body.tokens)} is outside the {size} of the vocabulary", param="tokens")
        text = await asyncio.to_thread(model.tokenizer.decode, body.tokens, skip_control=False)
        return json_response({"prompt": text})

    return routes


async def token_ids(model: AsyncModel, body: TokenizeRequest) -> list[int]:
    """The very ids that completions or chat completions would read.

    Raises `InvalidInput` as these do, and `ContextLengthExceeded` for far more than the context holds.
    """
    if (body.prompt is None) == (body.messages is None):
        raise InvalidInput("there must be either a prompt or messages", param="prompt")
    if body.prompt is not None:
        return await encode(
            _encoder(model, body.prompt, special=body.add_special_tokens is not False), len(body.prompt)
        )
    chat = ChatRequest(messages=body.messages or [], tools=body.tools, chat_template_kwargs=body.chat_template_kwargs)
    _, ids = await encode_chat_prompt(
        model, chat, requested_tools(chat), add_generation_prompt=body.add_generation_prompt is not False
    )
    return ids


def _encoder(model: AsyncModel, text: str, *, special: bool) -> Callable[[], list[int]]:
    def without_special() -> list[int]:
        model.tokenizer.check_length(text, model.context_length)
        return model.tokenizer.encode(text)

    return (lambda: model.encode_text(text)) if special else without_special


def _tokens(model: AsyncModel, ids: list[int], *, strings: bool) -> Response:
    texts = [token_text(model.tokenizer, token) for token in ids] if strings else None
    return json_response({"count": len(ids), "max_model_len": model.context_length, "tokens": ids, "token_strs": texts})
