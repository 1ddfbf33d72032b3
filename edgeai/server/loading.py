"""Packages to models in memory, and back: settings, self-check, and what is remembered of how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from edgeai.config import ServerSettings, home_dir
from edgeai.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from types import TracebackType

    from edgeai.device.power_governor import PowerGovernor
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.engine.config import EngineSettings
    from edgeai.model import AsyncModel, DiskCache
    from edgeai.package.package import Package
    from edgeai.tuning.run_marker import RunMarker

KV_DISK_BYTES = 2 << 30


class PackageLoader:
    """Loads packages by the server's settings. Leaving its context ends what is remembered of every model well.

    `shares` is how many language models the disk for computed prompts is divided among; `power` restrains them.
    """

    def __init__(
        self,
        settings: ServerSettings,
        say: Callable[[str], object],
        shares: Callable[[], int],
        power: PowerGovernor | None = None,
    ) -> None:
        self._settings, self._say, self._shares, self._power = settings, say, shares, power
        self._markers: dict[str, RunMarker] = {}  # by the package's digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for digest in list(self._markers):
            self._forget(digest)

    def load(self, package: Package) -> AsyncModel | AsyncEncoder:
        """Check what is due, and load. Raises `PackageError`, `OutOfMemory`, `InvalidInput`, `TrialFailed`."""
        loaded = self.open(package, self.prepare(package))
        self.ready(package)
        return loaded

    def prepare(self, package: Package) -> EngineSettings | None:
        """The settings to load a language model with, after a self-check where one is due; None for other kinds."""
        from edgeai.server.engine_settings import engine_settings

        if package.manifest.kind != "decoder":
            return None
        return engine_settings(package, self._settings, self._say, self._watch(package))

    def open(self, package: Package, limits: EngineSettings | None) -> AsyncModel | AsyncEncoder:
        """Load with settings from `prepare`; what is freed on the way is given back to the system."""
        from edgeai.device.heap import trim_heap
        from edgeai.device.tidying import tidy_in_background
        from edgeai.encoder.async_encoder import AsyncEncoder
        from edgeai.model import AsyncModel

        settings = self._settings
        loaded: AsyncModel | AsyncEncoder
        if limits is None:
            loaded = AsyncEncoder.load(package, threads=settings.threads, max_waiting=settings.max_queue)
        else:
            disk = disk_cache(settings, self._shares())
            loaded = AsyncModel.load(package, limits, disk=disk, power=self._power)
        trim_heap()  # loading leaves holes
        tidy_in_background(huge_pages=limits is None or not limits.tight)  # what they round up to would be missing
        return loaded

    def ready(self, package: Package) -> None:
        """The model answers now: should the process die, loading it was not the reason."""
        if package.digest in self._markers:
            self._markers[package.digest].ready()

    async def unload(self, package: Package, loaded: AsyncModel | AsyncEncoder | None) -> None:
        """Close the model, if there is one, and give its memory back, if the caller has no reference to it left."""
        from edgeai.device.heap import trim_heap

        if loaded is None:
            return
        await loaded.close()
        self._forget(package.digest)
        del loaded
        trim_heap()

    def _watch(self, package: Package) -> RunMarker:
        """Remembers how this model's server ends, for the next one's self-check; nothing where none is wanted."""
        from edgeai.tuning.profile import identity
        from edgeai.tuning.run_marker import RunMarker

        self._forget(package.digest)  # of a load that failed
        marker = RunMarker(None if self._settings.check == "never" else home_dir(), identity(package))
        self._markers[package.digest] = marker.__enter__()
        return marker

    def _forget(self, digest: str) -> None:
        marker = self._markers.pop(digest, None)
        if marker is not None:
            marker.__exit__(None, None, None)


def find_package(model: str | None) -> Package:
    """One package: a folder, an installed one by name, or without a name the only one there is.

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


def disk_cache(settings: ServerSettings, shares: int = 1) -> DiskCache | None:
    """Where a model's computed prompts survive restarts, unless the settings want none.

    Without a wish: 2 GiB, but no more than a tenth of what is free. `shares` models have it together.
    """
    from edgeai.device.profile import disk_free
    from edgeai.model import DiskCache

    wanted = settings.kv_disk_bytes
    size = min(KV_DISK_BYTES, disk_free(home_dir()) // 10) if wanted is None else wanted
    return DiskCache(home_dir() / "kv", size // shares, settings.kv_daily_bytes // shares) if size else None
