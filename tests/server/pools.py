"""Pools of models that are loaded already, and of packages that a plain function loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from edgeai.package.adapters import AdapterStore
from edgeai.server.model_pool import ModelPool
from edgeai.server.pool.catalog import Catalog
from edgeai.server.pool.names import Names
from edgeai.server.pool.residents import Residents


def package_like(name: str, kind: str = "decoder", *, digest: str = "0", size: int = 1) -> Any:
    """What the pool looks at in a package."""
    architecture = SimpleNamespace(context_length=256)
    manifest = SimpleNamespace(kind=kind, architecture=architecture, encoder=None)
    return SimpleNamespace(name=name, digest=digest, manifest=manifest, size_bytes=size)


class FunctionLoader:
    """Loads with a plain function; closing is all there is to unloading."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self.load = load

    async def unload(self, package: Any, loaded: Any) -> None:
        if loaded is not None:
            await loaded.close()


class Plenty:
    """Memory without end."""

    def fits(self, package: Any) -> bool:
        return True

    async def squeeze(self, models: Sequence[Any], package: Any) -> None:
        pass

    async def share_out(self, models: Sequence[Any]) -> None:
        pass


def nothing_to_load(package: Any) -> Any:
    raise AssertionError(f"{package.name} should be loaded already")


def pool_over(packages: Mapping[str, Any], adapters: AdapterStore | None = None, **options: Any) -> ModelPool:
    """A pool of `packages`, of which none is loaded."""
    given = {"loader": FunctionLoader(nothing_to_load), "room": Plenty()} | options
    return ModelPool(Names(Catalog(lambda: packages, list), adapters), Residents(**given))


def pool_of(model: Any, encoders: Sequence[Any] = (), adapters: AdapterStore | None = None) -> ModelPool:
    """A pool of these models, which stay in memory."""
    loaded = {each.name: each for each in ([model] if model is not None else [])}
    packages = {name: getattr(each, "package", None) or package_like(name) for name, each in loaded.items()}
    loaded |= {encoder.name: encoder for encoder in encoders}
    packages |= {encoder.name: encoder.encoder.package for encoder in encoders}
    pool = pool_over(packages, adapters)
    for name, each in loaded.items():
        pool.residents.adopt(name, packages[name], each)
    return pool
