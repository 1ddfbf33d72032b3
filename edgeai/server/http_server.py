"""The HTTP server around the models: application, guard, limits of connections, and what follows the settings."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from edgeai.config import ServerSettings, home_dir
from edgeai.device.power_governor import PowerGovernor
from edgeai.device.profile import disk_free, read_memory
from edgeai.server.admission import Admission
from edgeai.server.app import create_app
from edgeai.server.batch.runner import WorkFolder
from edgeai.server.body_budget import BodyBudget
from edgeai.server.connection import MAX_HEAD_BYTES, Deadlines, protocol_class
from edgeai.server.guard import Guard
from edgeai.server.logs import set_level
from edgeai.server.model_pool import ModelPool
from edgeai.server.quiet_server import QuietServer
from edgeai.server.reload import Reader, Reloader, Taker
from edgeai.server.tls import Tls

WORK_BYTES = 1 << 30  # of files and results of batches
GRACE_SECONDS = 30  # for running requests, once the server is told to stop
IDLE_SECONDS = 75  # a connection without requests; longer than clients keep theirs, so that none is cut at reuse


def http_server(
    models: ModelPool,
    settings: ServerSettings,
    *,
    address: str = "127.0.0.1",
    read: Reader | None = None,
    tls: Tls | None = None,
    power: PowerGovernor | None = None,
) -> QuietServer:
    """The server as `settings` want it, listening on the numeric `address`; SIGHUP has it `read` them again."""
    guard, deadlines, admission = Guard.of(settings, address), Deadlines(), Admission(settings)
    deadlines.follow(settings)
    app = create_app(models, guard=guard, bodies=BodyBudget.of(read_memory()), work=work_folder(), power=power)
    server = QuietServer(server_config(app, deadlines=deadlines, tls=tls), admission)
    takers: list[Taker] = [guard.follow, deadlines.follow, admission.follow, models.follow]
    takers.append(lambda taken: set_level(taken.log_level))
    takers += [tls.follow] if tls else []
    server.on_hangup = Reloader(settings, read or (lambda: settings), takers).reload
    return server


def work_folder() -> WorkFolder:
    """Where files and batches are kept: a gigabyte at most, or a tenth of what is free."""
    return WorkFolder(home_dir() / "work", min(WORK_BYTES, disk_free(home_dir()) // 10))


def server_config(
    app: FastAPI, *, deadlines: Deadlines | None = None, tls: Tls | None = None, grace: int = GRACE_SECONDS
) -> uvicorn.Config:
    """How uvicorn runs the application: without its own logs of requests, its clock and its name.

    The parser is h11, always: limits and deadlines of connections are made for it.
    """
    return uvicorn.Config(
        app,
        http=protocol_class(deadlines or Deadlines()),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        loop="asyncio",  # others accept connections by themselves, uncounted
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,  # `Gate` dates the answers: uvicorn would have to wake for it
        proxy_headers=False,  # anybody may write them
        ws="none",
        lifespan="on",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=grace,
    )
