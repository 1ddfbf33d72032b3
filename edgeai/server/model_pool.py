"""The models that a server answers with, by name. One model so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgeai.engine.request import EngineStats
from edgeai.errors import NotFound

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

DEFAULT_NAMES = frozenset({None, "", "default"})


class ModelPool:
    """Loaded models by name; the default one also answers to "default", to "" and to no name."""

    def __init__(self, model: AsyncModel) -> None:
        self.created = int(time.time())  # since when the models can be asked
        self._models = {model.name: model}
        self.default = model

    def get(self, name: str | None) -> AsyncModel:
        """The model that a request names. Raises `NotFound`."""
        if name in DEFAULT_NAMES and name not in self._models:
            return self.default
        model = self._models.get(name or "")
        if model is None:
            raise NotFound(f"there is no model {name!r}", f"there is {', '.join(self.names())}")
        return model

    def names(self) -> list[str]:
        """Names of all models that can be asked."""
        return sorted(self._models)

    def stats(self) -> dict[str, EngineStats]:
        """The engines' counts by model."""
        return {name: model.engine.stats() for name, model in self._models.items()}

    async def close(self) -> None:
        """Stop all engines; what still runs is cancelled."""
        for model in self._models.values():
            await model.engine.close()
