"""A real uvicorn on a free loopback port, in a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from edgeai.config import ServerSettings
from edgeai.server.admission import Admission
from edgeai.server.app import create_app
from edgeai.server.connection import Deadlines
from edgeai.server.http_server import server_config
from edgeai.server.listening import listen
from edgeai.server.loading import PackageLoader
from edgeai.server.pool.catalog import at_start, decoders, open_catalog
from edgeai.server.quiet_server import QuietServer
from edgeai.server.reload import Reader
from edgeai.server.serve import make_server
from edgeai.server.tls import Tls
from tests.fixtures.patience import PATIENCE, eventually
from tests.server.pools import pool_of


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    model: Any
    server: QuietServer

    def eventually(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Whether `condition` comes true within `seconds`."""
        return eventually(condition, seconds)


@contextmanager
def serving(
    model: Any,
    *,
    grace: int = 5,
    app: FastAPI | None = None,
    deadlines: Deadlines | None = None,
    admission: Admission | None = None,
    tls: Tls | None = None,
    also: Sequence[socket.socket] = (),
    **options: Any,
) -> Iterator[Served]:
    """Serve `model` until the block ends."""
    listener = listen("127.0.0.1", 0)
    config = server_config(app or create_app(pool_of(model), **options), deadlines=deadlines, tls=tls, grace=grace)
    server = QuietServer(config, admission)
    served = Served(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}", model, server)
    thread = threading.Thread(target=server.run, args=([listener, *also],))
    thread.start()
    try:
        assert served.eventually(lambda: server.started or not thread.is_alive())
        yield served
    finally:
        server.should_exit = True
        thread.join(timeout=grace + PATIENCE)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def serving_all(
    settings: ServerSettings, *, read: Reader | None = None, with_server: Callable[[QuietServer], None] = lambda _: None
) -> Iterator[str]:
    """Serve what these settings mean, as `edgeai serve` does; the address. `with_server` is given the server."""
    catalog = open_catalog(settings)
    first = at_start(catalog, settings)
    with listen("127.0.0.1", 0) as listener, PackageLoader(settings, print, lambda: decoders(catalog)) as loader:
        server = make_server(catalog, first, settings, loader, read=read)
        with_server(server)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=PATIENCE)
            assert not thread.is_alive()
