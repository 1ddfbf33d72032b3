"""`edgeai serve`: load the model, say where it is, answer until told to stop."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeai.config import ServerSettings, home_dir
from edgeai.device.power_governor import PowerGovernor
from edgeai.package.aliases import parse_aliases
from edgeai.server.announcing import announcing
from edgeai.server.deferred import models_built_when_used
from edgeai.server.first_key import prepare_keys, wants_keys
from edgeai.server.listening import listening, welcome
from edgeai.server.loading import PackageLoader
from edgeai.server.logs import log_to_stderr
from edgeai.server.pool.catalog import Catalog, Packages, at_start, decoders, first_kind, open_catalog
from edgeai.server.reload import Reader
from edgeai.server.signals import StopSignals, on_hangup
from edgeai.server.systemd import told
from edgeai.server.tls import Tls, open_tls
from edgeai.tuning.runtime_check import ensure_runtime

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.engine.config import EngineSettings
    from edgeai.model import AsyncModel
    from edgeai.package.package import Package
    from edgeai.server.quiet_server import QuietServer


def serve(settings: ServerSettings, *, read: Reader | None = None) -> None:
    """Serve until SIGINT or SIGTERM; running requests may then finish for a while.

    The address is taken before the model is loaded, so that a mistake shows at once. Raises `InvalidInput` for an
    address that cannot be had, `NotFound` without a model, and what loading raises. `read` gives the settings as they
    are written later, for SIGHUP.
    """
    with listening(settings) as listeners:
        listener = listeners[0]
        address = listener.getsockname()[0]
        with _no_garbage():
            parse_aliases(settings.alias)  # only to see that they are right
            catalog = open_catalog(settings)
            first = at_start(catalog, settings)
            _announce(catalog, first)
            if settings.check != "never":
                ensure_runtime(home_dir())
            prepare_keys(settings, address, home_dir(), say)
            tls = open_tls(settings, address, home_dir())
        power = PowerGovernor() if settings.power else None
        with StopSignals() as signals, PackageLoader(settings, say, lambda: decoders(catalog), power) as loader:
            with _no_garbage():
                log_to_stderr(settings.log_level, settings.log_format)
                server = make_server(catalog, first, settings, loader, address=address, read=read, tls=tls, power=power)
            signals.stop(server)
            with on_hangup(server.hang_up, server):
                for package in first.values():
                    loader.ready(package)
                names, kind = " and ".join(first or catalog.packages()), first_kind(catalog, first)
                fingerprint = tls.fingerprint() if tls else None
                say(welcome(listener, names, kind, auth=wants_keys(settings, address), fingerprint=fingerprint))
                with told(), announcing(settings, listener, tls=tls is not None):
                    server.run([*listeners])
                if signals.came is not None:
                    say("stopped")


def make_server(
    catalog: Catalog,
    first: Packages,
    settings: ServerSettings,
    loader: PackageLoader,
    *,
    address: str = "127.0.0.1",
    read: Reader | None = None,
    tls: Tls | None = None,
    power: PowerGovernor | None = None,
) -> QuietServer:
    """Load what is to be there from the start, and put the server around all of `catalog`. Raises as `loader` does.

    `address` is where it listens, `read` gives the settings as they are written later, `tls` encrypts, and `power`
    restrains.
    """
    # Only here: these imports take longer than finding a mistake in the settings. What loading needs is imported before
    # it starts, because two threads must not import one package at the same time.
    import edgeai.encoder.async_encoder
    import edgeai.model
    import edgeai.server.engine_settings  # noqa: F401
    from edgeai.device.heap import map_large_blocks, share_one_heap

    map_large_blocks()
    share_one_heap()
    packages = list(first.values())
    limits = loader.prepare(packages[0]) if packages else None
    with ThreadPoolExecutor(1, "edgeai-load") as pool:
        loading = pool.submit(_load_first, loader, packages, limits)
        with models_built_when_used():
            from edgeai.server.http_server import http_server  # takes as long as loading a small model
            from edgeai.server.make_pool import make_pool
    models = make_pool(catalog, settings, loader)
    for (name, package), loaded in zip(first.items(), loading.result(), strict=True):
        models.residents.adopt(name, package, loaded)
    return http_server(models, settings, address=address, read=read, tls=tls, power=power)


def _load_first(
    loader: PackageLoader, packages: Sequence[Package], limits: EngineSettings | None
) -> list[AsyncModel | AsyncEncoder]:
    """The first with settings that are prepared, the others with what memory it leaves."""
    return [loader.open(package, limits) for package in packages[:1]] + [loader.load(p) for p in packages[1:]]


def _announce(catalog: Catalog, first: Packages) -> None:
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import unsuited

    for warning in filter(None, (unsuited(package, read_cpu()) for package in first.values())):
        say(f"warning: {warning}")
    if first:
        say(f"loading {' and '.join(first)} ...")
    others = [name for name in catalog.packages() if name not in first]
    if others:
        say(f"loaded when asked for: {', '.join(others)}")


def say(text: str) -> None:
    """Tell the person at the terminal; standard output stays free."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is made while a server starts stays: to look for garbage in it, then or ever, is in vain."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
