"""`edgeai serve`: load the model, say where it is, answer until told to stop."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeai.config import ServerSettings, home_dir
from edgeai.errors import InvalidInput, NotFound
from edgeai.server.signals import sigterm_last
from edgeai.tuning.runtime_check import ensure_runtime

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.engine.config import EngineSettings
    from edgeai.model import AsyncModel, DiskCache
    from edgeai.package.manifest import Kind
    from edgeai.package.package import Package
    from edgeai.tuning.run_marker import RunMarker

# Address and body of a first request, by the kind of the model.
TRIALS: Mapping[Kind, tuple[str, str]] = {
    "decoder": ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'),
    "embedding": ("/v1/embeddings", '{"input": ["Why is the sky blue?"]}'),
    "reranker": ("/v1/rerank", '{"query": "Why is the sky blue?", "documents": ["It scatters light.", "I see."]}'),
}
GRACE_SECONDS = 30  # for running requests, once the server is told to stop
KV_DISK_BYTES = 2 << 30
IDLE_SECONDS = 75  # a connection without requests; longer than clients keep theirs, so that none is cut at reuse


def serve(settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM; running requests may then finish for a while.

    The address is taken before the model is loaded, so that a mistake shows at once. Raises `InvalidInput` for an
    address that cannot be had, `NotFound` without a model, and what loading raises.
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
        with sigterm_last(), marker:
            with _no_garbage():
                _log_to_stderr()
                server = make_server(packages, settings, marker)
            marker.ready()
            say(welcome(listener, names, packages[0].manifest.kind))
            try:
                server.run([listener])
            except KeyboardInterrupt:
                say("stopped")


def make_server(
    packages: Sequence[Package], settings: ServerSettings, marker: RunMarker | None = None
) -> uvicorn.Server:
    """Load the models, of which at most the first is a language model, and put the server around them.

    `marker` knows how the last server ended. Raises as `load_models` and `engine_settings` do.
    """
    # Only here: these imports take longer than finding a mistake in the settings. What loading needs is imported before
    # it starts, because two threads must not import one package at the same time.
    import edgeai.encoder.async_encoder
    import edgeai.model  # noqa: F401
    from edgeai.device.heap import map_large_blocks, trim_heap
    from edgeai.device.huge_pages import collapse_in_background
    from edgeai.package.adapters import AdapterStore
    from edgeai.server.engine_settings import engine_settings

    map_large_blocks()
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
    if model is None or not model.tight:  # what huge pages round up to would be missing
        collapse_in_background()
    return server


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


def watched(package: Package, settings: ServerSettings) -> RunMarker:
    """Remembers how this server ends, for the next one's self-check; nothing where none is wanted."""
    from edgeai.tuning.profile import identity
    from edgeai.tuning.run_marker import RunMarker

    return RunMarker(None if settings.check == "never" else home_dir(), identity(package))


def disk_cache(settings: ServerSettings) -> DiskCache | None:
    """Where computed prompts survive restarts, unless the settings want none.

    Without a wish: 2 GiB, but no more than a tenth of what is free.
    """
    from edgeai.device.profile import disk_free
    from edgeai.model import DiskCache

    wanted = settings.kv_disk_bytes
    size = min(KV_DISK_BYTES, disk_free(home_dir()) // 10) if wanted is None else wanted
    return DiskCache(home_dir() / "kv", size, settings.kv_daily_bytes) if size else None


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


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises `InvalidInput`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or error
        hint = "choose another --port or --host"
        raise InvalidInput(f"cannot listen on {host} port {port}: {reason}", hint, param="port") from error


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


def welcome(listener: socket.socket, model: str, kind: Kind = "decoder") -> str:
    """What to open, and a command to try."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{shown}:{port}"
    path, body = TRIALS[kind]
    page = f"Open {url}/ in a browser, or try:" if kind == "decoder" else "Try:"
    lines = [
        f"{model} is ready. {page}",
        f"  curl {url}{path} -H 'Content-Type: application/json' \\",
        f"    -d '{body}'",
        f"OpenAI clients: base_url {url}/v1 and any key. Ctrl-C stops.",
    ]
    return "\n".join(lines)


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


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("edgeai", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
