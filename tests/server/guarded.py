"""A server whose guard is as it would be on a network, though it listens on this machine only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeai.config import ServerSettings
from edgeai.keys.limits import TokenLedger
from edgeai.keys.store import KeyStore
from edgeai.server.auth import Authenticator
from edgeai.server.first_key import wants_keys
from edgeai.server.guard import Guard
from tests.server.scripted import ScriptedModel
from tests.server.serving import Served, serving

NETWORK = "192.0.2.1"


def guard_of(settings: ServerSettings, home: Path, listening: str = NETWORK) -> Guard:
    """The guard of a server that listens on `listening`."""
    keys = KeyStore(home) if wants_keys(settings, listening) else None
    return Guard(Authenticator(keys, TokenLedger(home), settings), settings, listening)


@contextmanager
def guarded(
    home: Path, *, model: ScriptedModel | None = None, listening: str = NETWORK, **settings: Any
) -> Iterator[Served]:
    """Serve with a guard."""
    with serving(model or ScriptedModel(), guard=guard_of(ServerSettings(**settings), home, listening)) as served:
        yield served
