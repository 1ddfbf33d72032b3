"""The application: routes, handlers and layers put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from edgeai import __version__
from edgeai.config import ServerSettings
from edgeai.device.power_governor import PowerGovernor
from edgeai.server import bundles, errors, rerank, status, tokenize
from edgeai.server.batch.inner import post
from edgeai.server.batch.routes import batch_router, file_router
from edgeai.server.batch.runner import BatchRunner, WorkFolder
from edgeai.server.body_budget import BodyBudget
from edgeai.server.guard import Guard
from edgeai.server.held import Held
from edgeai.server.metrics import Metrics
from edgeai.server.middleware import Gate
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama import routes as ollama
from edgeai.server.openai import chat, completions, embeddings
from edgeai.server.openai import models as model_routes
from edgeai.server.openai.responses import routes as responses
from edgeai.server.power import PowerCollector, idle_governor
from edgeai.server.systemd import feed_watchdog
from edgeai.server.web import pages

# FastAPI can send traces over the network if environment variables say so. Nothing may leave the device: all off.
_NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(
    models: ModelPool,
    *,
    guard: Guard | None = None,
    bodies: BodyBudget | None = None,
    work: WorkFolder | None = None,
    power: PowerGovernor | None = None,
) -> FastAPI:
    """The whole server over `models`, which it closes when it stops. Its documentation pages need the internet: off.

    `work` is where files and batches are kept; without it there are none. `power` is what restrains the models.
    """
    power = power or idle_governor()
    metrics = Metrics(models)
    metrics.registry.register(PowerCollector(power))
    runner = None if work is None else work.runner(lambda path, body, client: post(app, path, body, client))
    guard = guard or Guard.of(ServerSettings())
    app = FastAPI(
        title="edgeai",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(models, guard, runner),
        telemetry=_NO_TELEMETRY,
    )
    app.add_middleware(Held)
    app.add_middleware(Gate, metrics=metrics, bodies=bodies or BodyBudget(), guard=guard, power=power)
    errors.install(app)
    for router in (  # FastAPI prepares them one by one, as it looks for a path: what is asked for first stands first
        chat.router(models, metrics),
        status.router(models, metrics, power),
        bundles.router(),
        responses.router(models, metrics),
        completions.router(models, metrics),
        embeddings.router(models),
        rerank.router(models),
        tokenize.router(models),
        model_routes.router(models),
        *ollama.routers(models, metrics),
        pages.router(),
    ):
        app.include_router(router)
    if runner is not None:
        app.include_router(file_router(runner.files))
        app.include_router(batch_router(runner))
    _describe_when_asked(app, keys=guard.authenticator.wants_keys)
    return app


def _describe_when_asked(app: FastAPI, *, keys: bool) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            from edgeai.server.openapi.describe import described

            app.openapi_schema = described(made(), keys=keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _lifespan(models: ModelPool, guard: Guard, runner: BatchRunner | None) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if runner is not None:
            runner.start()
        watchdog = asyncio.create_task(feed_watchdog(lambda: not status.dead(models)))
        try:
            yield
        finally:
            watchdog.cancel()
            if runner is not None:
                await runner.stop()
            await models.close()
            guard.authenticator.close()

    return lifespan
