"""The models that a server answers with, by name: language models, their adapters, embedding models and rerankers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from edgeai.config import ServerSettings
from edgeai.engine.request import EngineStats
from edgeai.errors import EdgeaiError
from edgeai.package.manifest import Kind
from edgeai.server.held import hold
from edgeai.server.pool.names import Listed, Names, Target
from edgeai.server.pool.resident import Resident
from edgeai.server.pool.residents import Residents

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder, EncoderStats
    from edgeai.model import AsyncModel


log = logging.getLogger("edgeai.server")


class ModelPool:
    """`names` says what a request means, `residents` brings it into memory and keeps it there for as long as needed."""

    def __init__(self, names: Names, residents: Residents) -> None:
        self.created = int(time.time())  # since when the models can be asked
        self.names, self.residents = names, residents

    def follow(self, settings: ServerSettings) -> None:
        """Take over settings that were read again: what is pinned now is loaded, what no longer is may leave."""
        self.names.follow(settings)
        self.residents.follow(settings.pin, settings.keep_alive_seconds)
        packages = self.names.packages()
        for name in settings.pin:
            if name not in packages:
                log.warning("there is no model %r to pin; there is %s", name, ", ".join(packages))
            elif self.residents.state(name) == "available":
                self.residents.load(name, packages[name])

    async def find(self, name: str | None, request: HTTPConnection, keep_alive: float | None = None) -> AsyncModel:
        """The language model that a request names, in memory until the request is answered.

        Raises as `use` does.
        """
        return await hold(request, self.use(name, keep_alive=keep_alive))

    async def encoder(
        self, name: str | None, kind: Kind, request: HTTPConnection, keep_alive: float | None = None
    ) -> AsyncEncoder:
        """The embedding model or reranker that a request names, as `find`."""
        return await hold(request, self.use_encoder(name, kind, keep_alive=keep_alive))

    @asynccontextmanager
    async def use(self, name: str | None, *, keep_alive: float | None = None) -> AsyncIterator[AsyncModel]:
        """The language model called `name`, in memory for as long as the block lasts.

        Raises `NotFound`, `InvalidInput` for a model of another kind, `PackageError` for what cannot be loaded or an
        adapter that does not fit, `OutOfMemory` for a model that can never fit, `Overloaded` for one that cannot now.
        """
        target = self.names.resolve(name, "decoder")
        async with self._resident(target, keep_alive) as resident:
            if resident.model is None:
                raise RuntimeError(f"{target.name} was loaded as another kind of model")
            yield resident.model if target.adapter is None else await self._adapted(resident, target.adapter)

    @asynccontextmanager
    async def use_encoder(
        self, name: str | None, kind: Kind, *, keep_alive: float | None = None
    ) -> AsyncIterator[AsyncEncoder]:
        """The embedding model or reranker called `name`, as `use`."""
        target = self.names.resolve(name, kind)
        async with self._resident(target, keep_alive) as resident:
            if resident.encoder is None:
                raise RuntimeError(f"{target.name} was loaded as another kind of model")
            yield resident.encoder

    @asynccontextmanager
    async def _resident(self, target: Target, keep_alive: float | None) -> AsyncIterator[Resident]:
        self.residents.keep_only(self.names.packages().keys())
        async with self.residents.use(target.name, target.package, keep_alive) as resident:
            yield resident

    async def _adapted(self, resident: Resident, adapter: str) -> AsyncModel:
        adapters = self.names.adapters
        if adapters is None:
            raise RuntimeError("a name with an adapter was resolved without any")
        try:
            installed = adapters.get_for(resident.package, adapter)
        except EdgeaiError:
            resident.forget_adapter(adapter)
            raise
        return await resident.with_adapter(installed)

    def context_length(self, listed: Listed) -> int:
        """Tokens of the longest sequence: what memory allows where it is loaded, what the model has where it is not."""
        resident, manifest = self.residents.get(listed.root), listed.package.manifest
        if resident is not None and resident.model is not None:
            return resident.model.context_length
        if resident is not None and resident.encoder is not None:
            return resident.encoder.encoder.max_length
        return manifest.encoder.max_length if manifest.encoder else manifest.architecture.context_length

    def stats(self) -> dict[str, EngineStats]:
        """Counts of the language models in memory."""
        return {r.name: r.model.engine.stats() for r in self.residents.current() if r.model is not None}

    def encoder_stats(self) -> dict[str, EncoderStats]:
        """Counts of the other models in memory."""
        return {r.name: r.encoder.stats() for r in self.residents.current() if r.encoder is not None}

    async def close(self) -> None:
        """Stop all models; what still runs is cancelled."""
        await self.residents.close()
