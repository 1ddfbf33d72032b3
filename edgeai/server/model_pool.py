"""The models that a server answers with, by name: a language model, its adapters as "base:adapter", and encoders."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from edgeai.engine.request import EngineStats
from edgeai.errors import EdgeaiError, NotFound
from edgeai.package.adapters import SEPARATOR, AdapterStore
from edgeai.server.encoder_pool import EncoderPool, wrong_kind

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.model import AsyncModel
    from edgeai.package.manifest import Kind

DEFAULT_NAMES = frozenset({None, "", "default"})


class ModelPool:
    """Loaded models by name; the default one also answers to "default", to "" and to no name.

    Adapters are looked up when they are asked for: one that is installed or removed while the server runs is there, or
    gone, from the next request on.
    """

    def __init__(
        self, model: AsyncModel | None, adapters: AdapterStore | None = None, encoders: EncoderPool | None = None
    ) -> None:
        """`model` is None for a server that has encoders only."""
        self.created = int(time.time())  # since when the models can be asked
        self._models = {} if model is None else {model.name: model}
        self._adapters = adapters
        self._adapted: dict[str, AsyncModel] = {}  # those that have been asked for
        self._default = model
        self.encoders = encoders or EncoderPool()

    def get(self, name: str | None) -> AsyncModel:
        """The model that a request names. Raises `NotFound`."""
        if name in DEFAULT_NAMES and name not in self._models:
            if self._default is None:
                raise NotFound("this server has no language model", "`edgeai serve --model NAME` names one")
            return self._default
        encoder = self.encoders.all().get(name or "")
        if encoder is not None:
            raise wrong_kind(encoder.name, encoder.kind, "decoder")
        model = self._models.get(name or "")
        if model is None:
            raise NotFound(f"there is no model {name!r}", f"there is {', '.join(self.names())}")
        return model

    async def find(self, name: str | None) -> AsyncModel:
        """As `get`, and models with an adapter. Raises `NotFound`, `PackageError` for an adapter that does not fit."""
        base, separator, adapter = (name or "").partition(SEPARATOR)
        if not separator or self._adapters is None:
            return self.get(name)
        model = self.get(base)
        try:
            installed = self._adapters.get_for(model.package, adapter)
        except EdgeaiError:
            self._adapted.pop(f"{model.name}{SEPARATOR}{adapter}", None)  # removed, or replaced by what does not fit
            raise
        adapted = self._adapted.get(installed.model_name)
        if adapted is None or adapted.adapter is None or adapted.adapter.key.hex() != installed.digest:
            adapted = await asyncio.to_thread(model.with_adapter, installed)
            self._adapted[installed.model_name] = adapted
        return adapted

    def names(self) -> list[str]:
        """Names of all models that can be asked."""
        return sorted([*self._models, *self.parents(), *self.encoders.all()])

    def parents(self) -> dict[str, str]:
        """Names of all models with an adapter, and of the model each is based on."""
        if self._adapters is None:
            return {}
        fitting = [(base, self._adapters.fitting(model.package)) for base, model in self._models.items()]
        return {adapter.model_name: base for base, adapters in fitting for adapter in adapters}

    def encoder(self, name: str | None, kind: Kind) -> AsyncEncoder:
        """The embedding model or reranker that a request names. Raises `NotFound`, `InvalidInput` for other kinds."""
        return self.encoders.get(name, kind, self._models)

    def stats(self) -> dict[str, EngineStats]:
        """The engines' counts by model."""
        return {name: model.engine.stats() for name, model in self._models.items()}

    async def close(self) -> None:
        """Stop all engines; what still runs is cancelled."""
        for model in self._models.values():
            await model.close()
        await self.encoders.close()
