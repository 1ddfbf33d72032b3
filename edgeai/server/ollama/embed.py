"""`POST /api/embed` and the older `POST /api/embeddings`: texts to vectors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from edgeai.errors import InvalidInput
from edgeai.server.encoder_protocol import EmbeddingsRequest
from edgeai.server.generation import Usage
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama.documents import Stopwatch
from edgeai.server.ollama.names import known
from edgeai.server.ollama.protocol import EmbedBody, EmbeddingsBody, OllamaRequest
from edgeai.server.openai.embeddings import embed, rounded

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder


def router(models: ModelPool) -> APIRouter:
    """The endpoints over the embedding models of `models`."""
    routes = APIRouter()

    async def find(body: OllamaRequest, request: Request) -> AsyncEncoder:
        return await models.encoder(known(models, body.model), "embedding", request, body.keep_alive)

    @routes.post("/api/embed")
    async def vectors(body: EmbedBody, request: Request) -> dict[str, Any]:
        watch = Stopwatch()
        model = await find(body, request)
        watch.model_is_there()
        texts = [body.input] if isinstance(body.input, str) else body.input
        found, usage = await _embed(model, texts, truncate=body.truncate is not False, dimensions=body.dimensions)
        request.state.usage = usage
        durations = watch.durations(usage)
        told = {name: durations[name] for name in ("total_duration", "load_duration", "prompt_eval_count")}
        return {"model": body.model, "embeddings": found, **told}

    @routes.post("/api/embeddings")
    async def vector(body: EmbeddingsBody, request: Request) -> dict[str, Any]:
        model = await find(body, request)
        found, usage = await _embed(model, [body.prompt] if body.prompt else [], truncate=True, dimensions=None)
        request.state.usage = usage
        return {"embedding": found[0] if found else []}

    return routes


async def _embed(
    model: AsyncEncoder, texts: list[str], *, truncate: bool, dimensions: int | None
) -> tuple[list[Any], Usage]:
    """Vectors as JSON has them; none for no texts, which only loads the model. Raises as OpenAI's endpoint does."""
    if not texts:
        return [], Usage()
    try:
        same = EmbeddingsRequest(input=[*texts], truncate=truncate, dimensions=dimensions)
    except ValidationError as error:
        raise InvalidInput(str(error.errors()[0]["msg"]), param="input") from None
    vectors, usage = await embed(model, same)
    return await asyncio.to_thread(rounded, vectors), usage
