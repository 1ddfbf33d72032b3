"""`/health` for probes, `/metrics` for Prometheus, `/status` for the page. No prompts, no addresses."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from edgeai import __version__
from edgeai.appliance.card_writes import read_card_writes
from edgeai.device.power_governor import PowerGovernor
from edgeai.device.profile import Memory, read_memory
from edgeai.engine.governor import REFUSING
from edgeai.engine.request import EngineStats, MemoryState
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.pool.names import Listed
from edgeai.server.power import device_state

RETRY_SECONDS = 5
MEMORY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over all language models; tokens count from the start of the server."""

    running: int
    waiting: int
    rows: int  # that may run at once now
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
            rows=sum(each.rows for each in stats),
            prompt_tokens=sum(each.prompt_tokens for each in stats),
            cached_tokens=sum(each.prefix_cache_hit_tokens for each in stats),
            generated_tokens=sum(each.generated_tokens for each in stats),
            cache_bytes=sum(each.kv_used_bytes for each in stats),
            cache_budget_bytes=sum(each.kv_budget_bytes for each in stats),
        )


class RecentMemory:
    """The machine's memory as it was within the last second: many pages may ask, and a reading opens several files."""

    def __init__(self, read: Callable[[], Memory] = read_memory, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._last: tuple[float, Memory] | None = None

    def look(self) -> Memory:
        """A reading that is at most `MEMORY_SECONDS` old."""
        now = self._clock()
        if self._last is None or now - self._last[0] >= MEMORY_SECONDS:
            self._last = now, self._read()
        return self._last[1]


def router(models: ModelPool, metrics: Metrics, power: PowerGovernor) -> APIRouter:
    """The endpoints over the models of `models`, on a device that `power` knows."""
    routes = APIRouter()
    started = time.monotonic()
    memory = RecentMemory()

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def health() -> dict[str, Any]:
        return _health(models)

    @routes.get("/health/live")
    async def live() -> Response:
        return _verdict(dead(models))

    @routes.get("/health/ready")
    async def ready() -> Response:
        return _verdict(dead(models) or unready(models, power))

    @routes.get("/metrics", response_model=None)
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/status")
    async def status() -> dict[str, Any]:
        return _status(models, power, memory.look(), time.monotonic() - started)

    return routes


def _verdict(trouble: str) -> Response:
    """200, or 503 with what is wrong, for whoever starts servers again or sends requests elsewhere."""
    if not trouble:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": trouble}, 503, {"retry-after": str(RETRY_SECONDS)})


def dead(models: ModelPool) -> str:
    """Which engines do not come back from their work; starting the server again may help. Empty if all do."""
    names = [name for name, stats in models.stats().items() if not stats.alive]
    return f"the engine of {' and '.join(names)} does not come back from its work" if names else ""


def unready(models: ModelPool, power: PowerGovernor) -> str:
    """Why new requests are refused now; waiting may help. Empty if they are not."""
    if power.look().refusing:
        return power.restraint.why
    return "memory is scarce" if worst(list(models.stats().values())).level >= REFUSING else ""


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


def _status(models: ModelPool, power: PowerGovernor, memory: Memory, uptime: float) -> dict[str, Any]:
    stats = list(models.stats().values())
    counts = Counts.of(stats)
    return {
        "name": socket.gethostname(),
        "version": __version__,
        "uptime_seconds": round(uptime, 3),
        "models": [_model(models, listed) for listed in models.names.listed()],
        "counts": asdict(counts),
        "memory": _memory(memory, worst(stats)),
        "device": {**device_state(power, counts.generated_tokens), "load": os.getloadavg()[0]},
        "card": {"written_bytes": read_card_writes().days},  # by day; of boards that were started from an image
    }


def _model(models: ModelPool, listed: Listed) -> dict[str, Any]:
    """Where a model is, and in memory for how long if nobody asks for it; None: until others need the room."""
    resident = models.residents.get(listed.root)
    stays = None if resident is None else resident.seconds_left(asyncio.get_running_loop().time())
    return {
        "id": listed.name,
        "state": models.residents.state(listed.root),
        "pinned": models.residents.is_pinned(listed.root),
        "stays_seconds": None if stays is None else round(stays, 3),
    }


def worst(stats: list[EngineStats]) -> MemoryState:
    """The state of the model that is most restrained; a server without language models is never."""
    return max((each.memory for each in stats), key=lambda state: state.level, default=MemoryState())


def _memory(memory: Memory, state: MemoryState) -> dict[str, Any]:
    """Of the machine, within the limit of this server's control group."""
    used = memory.size - min(memory.size, memory.available)
    return {"total_bytes": memory.size, "used_bytes": used, "level": state.level, "state": state.name}
