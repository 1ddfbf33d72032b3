"""One package that is in memory, on its way there, or about to leave."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgeai.package.adapters import InstalledAdapter
from edgeai.package.package import Package

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.model import AsyncModel

State = Literal["available", "loading", "loaded"]  # on disk; asked for; in memory


@dataclass(eq=False, slots=True)
class Resident:
    """`leases` counts the requests that use it or wait for it; only without any may it leave memory.

    Times are seconds of the event loop's clock. `retired`: another package has its name now, or none. `asked`: whether
    the last request itself said until when it stays.
    """

    name: str
    package: Package
    pinned: bool = False
    leases: int = 0
    last_used: float = 0.0
    expires: float = math.inf
    asked: bool = False
    retired: bool = False
    load_seconds: float = 0.0
    loading: asyncio.Task[None] | None = None
    model: AsyncModel | None = None  # one of these two once it is loaded
    encoder: AsyncEncoder | None = None
    _adapted: dict[str, AsyncModel] = field(default_factory=dict)  # those that have been asked for

    @property
    def loaded(self) -> bool:
        return self.model is not None or self.encoder is not None

    @property
    def state(self) -> State:
        if self.loaded:
            return "loaded"
        return "available" if self.loading is None else "loading"

    @property
    def idle(self) -> bool:
        """Whether it could be unloaded now."""
        return self.loaded and not self.leases and (self.retired or not self.pinned)

    def seconds_left(self, now: float) -> float | None:
        """How long it stays in memory at most if nobody asks for it; None: for ever, as far as it is up to that."""
        if self.pinned or math.isinf(self.expires):
            return None
        return max(0.0, self.expires - now)

    def summary(self) -> dict[str, Any]:
        """For status pages: its state and how much it has to do."""
        running = waiting = 0
        if self.model is not None:
            stats = self.model.engine.stats()
            running, waiting = stats.running, stats.waiting
        elif self.encoder is not None:
            running = self.encoder.stats().waiting
        kind = self.package.manifest.kind
        return {"state": self.state, "kind": kind, "pinned": self.pinned, "running": running, "waiting": waiting}

    def put(self, loaded: AsyncModel | AsyncEncoder) -> None:
        """It is in memory now."""
        from edgeai.encoder.async_encoder import AsyncEncoder

        if isinstance(loaded, AsyncEncoder):
            self.encoder = loaded
        else:
            self.model = loaded

    def take(self) -> AsyncModel | AsyncEncoder | None:
        """What is in memory, to be closed; nothing here holds on to it any more."""
        taken = self.model or self.encoder
        self.model = self.encoder = None
        self._adapted.clear()
        return taken

    async def with_adapter(self, installed: InstalledAdapter) -> AsyncModel:
        """The language model with an adapter; its weights are read once. Raises `PackageError` as `load` does."""
        if self.model is None:
            raise RuntimeError(f"{self.name} is no language model in memory")
        adapted = self._adapted.get(installed.name)
        if adapted is None or adapted.adapter is None or adapted.adapter.key.hex() != installed.digest:
            adapted = await asyncio.to_thread(self.model.with_adapter, installed)
            self._adapted[installed.name] = adapted
        return adapted

    def forget_adapter(self, name: str) -> None:
        """It was removed, or replaced by what does not fit."""
        self._adapted.pop(name, None)
