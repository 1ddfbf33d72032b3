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
        parents = models.parents()
        return {"object": "list", "data": [_model(models, name, parents.get(name)) for name in models.names()]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        parent = models.parents().get(name)
        return _model(models, name if name in models.names() else models.get(name).name, parent)

    return routes


def _model(models: ModelPool, name: str, parent: str | None) -> dict[str, Any]:
    """OpenAI's fields, and vLLM's: the longest context in tokens, and of an adapter its base; and its kind."""
    root = parent or name
    encoder = models.encoders.all().get(name)
    return {
        "id": name,
        "object": "model",
        "created": models.created,
        "owned_by": "edgeai",
        "root": root,
        "parent": parent,
        "kind": "decoder" if encoder is None else encoder.kind,
        "max_model_len": models.get(root).context_length if encoder is None else encoder.encoder.max_length,
    }
