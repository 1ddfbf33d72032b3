"""`/health` for probes, `/metrics` for Prometheus, `/status` for the page. No prompts, no addresses."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from edgeai import __version__
from edgeai.device.profile import read_memory
from edgeai.device.thermal import celsius
from edgeai.engine.request import EngineStats, MemoryState
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over all language models; tokens count from the start of the server."""

    running: int
    waiting: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    cache_bytes: int
    cache_budget_bytes: int

    @classmethod
    def of(cls, stats: list[EngineStats]) -> Counts:
        """The sums of `stats`."""
        return cls(
            running=sum(each.running for each in stats),
            waiting=sum(each.waiting for each in stats),
            prompt_tokens=sum(each.prompt_tokens for each in stats),
            cached_tokens=sum(each.prefix_cache_hit_tokens for each in stats),
            generated_tokens=sum(each.generated_tokens for each in stats),
            cache_bytes=sum(each.kv_used_bytes for each in stats),
            cache_budget_bytes=sum(each.kv_budget_bytes for each in stats),
        )


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoints over the models of `models`."""
    routes = APIRouter()
    started = time.monotonic()

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def health() -> dict[str, Any]:
        return _health(models)

    @routes.get("/metrics", response_model=None)
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/status")
    async def status() -> dict[str, Any]:
        return _status(models, time.monotonic() - started)

    return routes


def _health(models: ModelPool) -> dict[str, Any]:
    stats = list(models.stats().values())
    encoding = models.encoder_stats().values()
    memory = worst(stats)
    return {
        "status": "ok",
        "models": models.names.all(),
        "loaded": {resident.name: resident.summary() for resident in models.residents.current()},
        "running": sum(each.running for each in stats) + sum(each.waiting for each in encoding),
        "waiting": sum(each.waiting for each in stats),
        "memory": {"level": memory.level, "state": memory.name, "available_bytes": memory.available},
    }


def _status(models: ModelPool, uptime: float) -> dict[str, Any]:
    stats = list(models.stats().values())
    return {
        "name": socket.gethostname(),
        "version": __version__,
        "uptime_seconds": round(uptime, 3),
        "models": [{"id": each.name, "state": models.residents.state(each.root)} for each in models.names.listed()],
        "counts": asdict(Counts.of(stats)),
        "memory": _memory(worst(stats)),
        "device": {"celsius": celsius(), "load": os.getloadavg()[0]},
    }


def worst(stats: list[EngineStats]) -> MemoryState:
    """The state of the model that is most restrained; a server without language models is never."""
    return max((each.memory for each in stats), key=lambda state: state.level, default=MemoryState())


def _memory(state: MemoryState) -> dict[str, Any]:
    """Of the machine, within the limit of this server's control group."""
    memory = read_memory()
    used = memory.size - min(memory.size, memory.available)
    return {"total_bytes": memory.size, "used_bytes": used, "level": state.level, "state": state.name}
