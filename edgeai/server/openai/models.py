"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edgeai.server.model_pool import ModelPool


def router(models: ModelPool) -> APIRouter:
    """The endpoints over the models of `models`."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(models, name) for name in models.names()]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        return _model(models, models.get(name).name)

    return routes


def _model(models: ModelPool, name: str) -> dict[str, Any]:
    """OpenAI's fields, and `max_model_len` as vLLM calls the longest context in tokens."""
    model = models.get(name)
    return {
        "id": name,
        "object": "model",
        "created": models.created,
        "owned_by": "edgeai",
        "max_model_len": model.context_length,
    }
