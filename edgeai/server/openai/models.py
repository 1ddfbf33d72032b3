"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edgeai.server.model_pool import ModelPool
from edgeai.server.pool.names import Listed


def router(models: ModelPool) -> APIRouter:
    """The endpoints over the models of `models`."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(models, listed) for listed in models.names.listed()]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        return _model(models, models.names.get(name))

    return routes


def _model(models: ModelPool, listed: Listed) -> dict[str, Any]:
    """OpenAI's fields, and vLLM's: the longest context in tokens, and of an adapter its base; and edgeai's own.

    `state` is "available" for what is loaded when it is asked for; its context may then turn out shorter.
    """
    return {
        "id": listed.name,
        "object": "model",
        "created": models.created,
        "owned_by": "edgeai",
        "root": listed.root,
        "parent": listed.parent,
        "kind": listed.package.manifest.kind,
        "max_model_len": models.context_length(listed),
        "state": models.residents.state(listed.root),
        "pinned": models.residents.is_pinned(listed.root),
        "size": listed.package.size_bytes,
    }
