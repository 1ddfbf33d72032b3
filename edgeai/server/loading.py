"""What a server is to load: the packages that are named or installed, opened as models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeai.config import ServerSettings, home_dir
from edgeai.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.engine.config import EngineSettings
    from edgeai.model import AsyncModel, DiskCache
    from edgeai.package.package import Package

KV_DISK_BYTES = 2 << 30


def find_packages(settings: ServerSettings) -> list[Package]:
    """The packages to serve, a language model first: those that are named, or else all that are installed.

    Raises as `find_package`, also for several language models: a server has one so far.
    """
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import chosen_variants, open_variant
    from edgeai.package.store import Store

    store = Store(home_dir())
    if settings.model is not None:
        packages = [open_variant(store, name, read_cpu()) for name in dict.fromkeys((settings.model, *settings.also))]
    else:
        packages = chosen_variants(store, read_cpu()) or [find_package(None)]
    chat = [package.name for package in packages if package.manifest.kind == "decoder"]
    if len(chat) > 1:
        raise InvalidInput(
            "several models are installed" if settings.model is None else "a server has one language model",
            f"name one of {', '.join(chat)}",
            param="model",
        )
    return sorted(packages, key=lambda package: package.manifest.kind != "decoder")


def find_package(model: str | None) -> Package:
    """The package to serve: a folder, an installed one by name, or without a name the only one there is.

    Raises `NotFound` when there is none, `InvalidInput` when there are several to choose from.
    """
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import chosen_variants, open_variant
    from edgeai.package.store import Store

    store = Store(home_dir())
    if model is not None:
        return open_variant(store, model, read_cpu())
    packages = chosen_variants(store, read_cpu())
    if not packages:
        raise NotFound(f"no model is installed in {store.folder}", "`edgeai build RECIPE` makes one")
    if len(packages) > 1:
        names = ", ".join(package.name for package in packages)
        raise InvalidInput("several models are installed", f"name one of {names}", param="model")
    return packages[0]


def load_models(
    packages: Sequence[Package], settings: ServerSettings, limits: EngineSettings | None
) -> tuple[AsyncModel | None, list[AsyncEncoder]]:
    """The language model, if there are `limits` for one, and all others.

    Raises `PackageError`, `OutOfMemory`, `InvalidInput`.
    """
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.model import AsyncModel

    encoders = [
        AsyncEncoder.load(package, threads=settings.threads, max_waiting=settings.max_queue)
        for package in packages
        if package.manifest.kind != "decoder"
    ]
    model = None if limits is None else AsyncModel.load(packages[0], limits, disk=disk_cache(settings))
    return model, encoders


def disk_cache(settings: ServerSettings) -> DiskCache | None:
    """Where computed prompts survive restarts, unless the settings want none.

    Without a wish: 2 GiB, but no more than a tenth of what is free.
    """
    from edgeai.device.profile import disk_free
    from edgeai.model import DiskCache

    wanted = settings.kv_disk_bytes
    size = min(KV_DISK_BYTES, disk_free(home_dir()) // 10) if wanted is None else wanted
    return DiskCache(home_dir() / "kv", size, settings.kv_daily_bytes) if size else None
