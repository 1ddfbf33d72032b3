"""The pool of a server's models, as its settings want it."""

from __future__ import annotations

from edgeai.config import ServerSettings, home_dir
from edgeai.package.adapters import AdapterStore
from edgeai.package.aliases import AliasFile, parse_aliases
from edgeai.server.model_pool import ModelPool
from edgeai.server.pool.catalog import Catalog
from edgeai.server.pool.names import Names
from edgeai.server.pool.residents import Loader, Residents
from edgeai.server.pool.room import DeviceRoom


def make_pool(catalog: Catalog, settings: ServerSettings, loader: Loader) -> ModelPool:
    """Nothing is loaded yet. Raises `InvalidInput` for aliases that cannot be."""
    home = home_dir()
    names = Names(
        catalog,
        AdapterStore(home),
        aliases=parse_aliases(settings.alias),
        alias_file=AliasFile(home),
        preferred=(*settings.pin, *settings.preload),
    )
    return ModelPool(
        names, Residents(loader, DeviceRoom(settings), pinned=settings.pin, keep_alive=settings.keep_alive_seconds)
    )
