"""`POST /api/generate`: one prompt, through the chat template or as it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.errors import InvalidInput
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama.chat import converse, only_load
from edgeai.server.ollama.documents import Stopwatch
from edgeai.server.ollama.names import known
from edgeai.server.ollama.options import raw_request
from edgeai.server.ollama.protocol import GenerateBody, OllamaMessage
from edgeai.server.ollama.writing import GenerateForm, Task, write
from edgeai.server.openai.completions import encode_prompt
from edgeai.server.openai.deltas import ReplyDeltas
from edgeai.server.openai.structured import requested_grammar
from edgeai.text.tool_calls.events import PlainParser

NOT_HERE = {
    "suffix": "models here only write on",
    "template": "Ollama's templates are not understood; use raw with a prompt that is complete",
    "images": "this model reads only text",
}


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/api/generate", response_model=None)
    async def generate(body: GenerateBody, request: Request) -> Response:
        _check_supported(body)
        if not body.prompt:
            return await only_load(models, body, request, GenerateForm())
        if body.raw:
            return await _write_on(models, metrics, body, body.prompt, request)
        turns = [OllamaMessage(role="user", content=body.prompt)]
        if body.system:
            turns.insert(0, OllamaMessage(role="system", content=body.system))
        return await converse(models, metrics, body, request, turns, GenerateForm(), before=body.context or ())

    return routes


def _check_supported(body: GenerateBody) -> None:
    for field, reason in NOT_HERE.items():
        if getattr(body, field):
            raise InvalidInput(f"{field} is not supported: {reason}", "leave it out", param=field)


async def _write_on(models: ModelPool, metrics: Metrics, body: GenerateBody, prompt: str, request: Request) -> Response:
    """Continue a prompt without a template. Raises as the OpenAI endpoint does."""
    watch = Stopwatch()
    model = await models.find(known(models, body.model), request, body.keep_alive)
    watch.model_is_there()
    same = raw_request(model, body)
    ids = [*(body.context or ()), *await encode_prompt(model, prompt)]
    task = Task(ids, same, GenerateForm(), ReplyDeltas(PlainParser()), await requested_grammar(same))
    return await write(request, body, model, metrics, task, watch)
