"""`edgeai serve`: load the model, say where it is, answer until told to stop."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeai.config import ServerSettings, home_dir
from edgeai.server.announcing import announcing
from edgeai.server.listening import listen, welcome
from edgeai.server.loading import find_packages, load_models
from edgeai.server.logs import log_to_stderr, set_level
from edgeai.server.reload import Reader, Reloader, Taker
from edgeai.server.signals import StopSignals, on_hangup
from edgeai.tuning.runtime_check import ensure_runtime

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from edgeai.package.package import Package
    from edgeai.server.quiet_server import QuietServer
    from edgeai.tuning.run_marker import RunMarker

GRACE_SECONDS = 30  # for running requests, once the server is told to stop
IDLE_SECONDS = 75  # a connection without requests; longer than clients keep theirs, so that none is cut at reuse


def serve(settings: ServerSettings, *, read: Reader | None = None) -> None:
    """Serve until SIGINT or SIGTERM; running requests may then finish for a while.

    The address is taken before the model is loaded, so that a mistake shows at once. Raises `InvalidInput` for an
    address that cannot be had, `NotFound` without a model, and what loading raises. `read` gives the settings as they
    are written later, for SIGHUP.
    """
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import unsuited

    with listen(settings.host, settings.port) as listener:
        with _no_garbage():
            packages = find_packages(settings)
            names = " and ".join(package.name for package in packages)
            for warning in filter(None, (unsuited(package, read_cpu()) for package in packages)):
                say(f"warning: {warning}")
            say(f"loading {names} ...")
            if settings.check != "never":
                ensure_runtime(home_dir())
            marker = watched(packages[0], settings)
        with StopSignals() as signals, marker:
            with _no_garbage():
                log_to_stderr(settings.log_level)
                server = make_server(packages, settings, marker)
                server.on_hangup = Reloader(settings, read or (lambda: settings), live_settings()).reload
            signals.stop(server)
            with on_hangup(server.hang_up), announcing(settings, listener):
                marker.ready()
                say(welcome(listener, names, packages[0].manifest.kind))
                server.run([listener])
                if signals.came is not None:
                    say("stopped")


def make_server(packages: Sequence[Package], settings: ServerSettings, marker: RunMarker | None = None) -> QuietServer:
    """Load the models, of which at most the first is a language model, and put the server around them.

    `marker` knows how the last server ended. Raises as `load_models` and `engine_settings` do.
    """
    # Only here: these imports take longer than finding a mistake in the settings. What loading needs is imported before
    # it starts, because two threads must not import one package at the same time.
    import edgeai.encoder.async_encoder
    import edgeai.model  # noqa: F401
    from edgeai.device.heap import map_large_blocks, share_one_heap, trim_heap
    from edgeai.device.tidying import tidy_in_background
    from edgeai.package.adapters import AdapterStore
    from edgeai.server.engine_settings import engine_settings

    map_large_blocks()
    share_one_heap()
    decoder = packages[0].manifest.kind == "decoder"
    limits = engine_settings(packages[0], settings, say, marker) if decoder else None
    with ThreadPoolExecutor(1, "edgeai-load") as pool:
        loading = pool.submit(load_models, packages, settings, limits)
        from edgeai.device.profile import read_memory
        from edgeai.server.app import create_app  # takes as long as loading a small model
        from edgeai.server.body_budget import BodyBudget
        from edgeai.server.encoder_pool import EncoderPool
        from edgeai.server.model_pool import ModelPool
        from edgeai.server.quiet_server import QuietServer
    model, encoders = loading.result()
    models = ModelPool(model, AdapterStore(home_dir()), EncoderPool(encoders))
    server = QuietServer(server_config(create_app(models, bodies=BodyBudget.of(read_memory()))))
    trim_heap()  # loading leaves holes
    tidy_in_background(huge_pages=model is None or not model.tight)  # what they round up to would be missing
    return server


def watched(package: Package, settings: ServerSettings) -> RunMarker:
    """Remembers how this server ends, for the next one's self-check; nothing where none is wanted."""
    from edgeai.tuning.profile import identity
    from edgeai.tuning.run_marker import RunMarker

    return RunMarker(None if settings.check == "never" else home_dir(), identity(package))


def live_settings() -> list[Taker]:
    """What follows the settings of a running server."""
    return [lambda settings: set_level(settings.log_level)]


def server_config(app: FastAPI, *, grace: int = GRACE_SECONDS) -> uvicorn.Config:
    """How uvicorn runs the application: without its own logs of requests, its clock and its name."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,  # `Gate` dates the answers: uvicorn would have to wake for it
        ws="none",
        lifespan="on",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=grace,
    )


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
