"""The application: routes, handlers and layers put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from edgeai import __version__
from edgeai.engine.request import MemoryState
from edgeai.server import errors, rerank
from edgeai.server.body_budget import BodyBudget
from edgeai.server.metrics import Metrics
from edgeai.server.middleware import Gate
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai import chat, completions, embeddings
from edgeai.server.openai import models as model_routes
from edgeai.server.web import page

# FastAPI can send traces over the network if environment variables say so. Nothing may leave the device: all off.
_NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(models: ModelPool, *, bodies: BodyBudget | None = None) -> FastAPI:
    """The whole server over `models`, which it closes when it stops. Its documentation pages need the internet: off."""
    metrics = Metrics(models)
    app = FastAPI(
        title="edgeai",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_closing(models),
        telemetry=_NO_TELEMETRY,
    )
    app.add_middleware(Gate, metrics=metrics, bodies=bodies or BodyBudget())
    errors.install(app)
    for router in (
        chat.router(models, metrics),
        completions.router(models, metrics),
        embeddings.router(models),
        rerank.router(models),
        model_routes.router(models),
    ):
        app.include_router(router)
    _add_status(app, models, metrics)
    app.add_api_route("/", page.show, methods=["GET", "HEAD"], include_in_schema=False)
    return app


def _closing(models: ModelPool) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await models.close()

    return lifespan


def memory_state(states: Iterable[MemoryState]) -> dict[str, Any]:
    """The state of the model that is most restrained; a server without language models is never."""
    worst = max(states, key=lambda state: state.level, default=MemoryState())
    return {"level": worst.level, "state": worst.name, "available_bytes": worst.available}


def _add_status(app: FastAPI, models: ModelPool, metrics: Metrics) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, Any]:
        counts = models.stats().values()
        encoding = models.encoders.stats().values()
        return {
            "status": "ok",
            "models": models.names(),
            "running": sum(stats.running for stats in counts) + sum(stats.waiting for stats in encoding),
            "waiting": sum(stats.waiting for stats in counts),
            "memory": memory_state(stats.memory for stats in counts),
        }

    @app.get("/metrics", response_model=None)
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)
