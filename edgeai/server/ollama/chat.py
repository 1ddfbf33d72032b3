"""`POST /api/chat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama.documents import Stopwatch
from edgeai.server.ollama.names import known
from edgeai.server.ollama.options import chat_request
from edgeai.server.ollama.protocol import ChatBody, OllamaMessage, WritingRequest
from edgeai.server.ollama.writing import ChatForm, Form, Task, nothing_written, write
from edgeai.server.openai.chat import prepare


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/api/chat", response_model=None)
    async def chat(body: ChatBody, request: Request) -> Response:
        if not body.messages:
            return await only_load(models, body, request, ChatForm())
        return await converse(models, metrics, body, request, body.messages, ChatForm(), body.tools or ())

    return routes


async def only_load(models: ModelPool, body: WritingRequest, request: Request, form: Form) -> Response:
    """Bring the model into memory, or with `keep_alive` 0 out of it."""
    name = known(models, body.model)
    if body.keep_alive == 0:
        models.residents.unload(models.names.resolve(name).name)
        return nothing_written(body.model, form, "unload")
    await models.find(name, request, body.keep_alive)
    return nothing_written(body.model, form, "load")


async def converse(
    models: ModelPool,
    metrics: Metrics,
    body: WritingRequest,
    request: Request,
    messages: Sequence[OllamaMessage],
    form: Form,
    tools: Sequence[dict[str, Any]] = (),
    before: Sequence[int] = (),
) -> Response:
    """Answer `messages`; those of an earlier conversation may come `before` them as token ids.

    Raises as the OpenAI endpoint does.
    """
    watch = Stopwatch()
    model = await models.find(known(models, body.model), request, body.keep_alive)
    watch.model_is_there()
    same = chat_request(model, body, messages, tools)
    wanted = await prepare(model, same)
    begun = before and wanted.prompt[:1] == [model.manifest.tokens.bos]
    prompt = [*before, *wanted.prompt[1 if begun else 0 :]]
    task = Task(prompt, same, form, wanted.deltas(), wanted.spec, wanted.shown(model))
    return await write(request, body, model, metrics, task, watch)
