"""The guard at the door: looks at a request's head before anything else does, and says who asks."""

from __future__ import annotations

from typing import Self

from starlette.datastructures import Headers
from starlette.types import Scope

from edgeai.config import ServerSettings, home_dir
from edgeai.keys.limits import TokenLedger
from edgeai.keys.store import KeyStore
from edgeai.server.auth import Authenticator, Client
from edgeai.server.browsers import HostNames, check_host, check_origin, cors_headers, is_preflight, preflight_headers
from edgeai.server.first_key import wants_keys


class Guard:
    """Names, origins and keys that are let in."""

    def __init__(self, authenticator: Authenticator, settings: ServerSettings, listening: str) -> None:
        """`listening` is the numeric address that the server listens on."""
        self.authenticator = authenticator
        self._listening = listening
        self.follow(settings)

    @classmethod
    def of(cls, settings: ServerSettings, listening: str = "127.0.0.1") -> Self:
        """The guard over this home's keys and counts."""
        home = home_dir()
        keys = KeyStore(home) if wants_keys(settings, listening) else None
        return cls(Authenticator(keys, TokenLedger(home), settings), settings, listening)

    def follow(self, settings: ServerSettings) -> None:
        """Take over settings that were read again."""
        self.settings = settings
        self._names = HostNames(self._listening, settings.hostname, settings.name)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.cors_origin)
        self.authenticator.settings = settings

    def look(self, scope: Scope, headers: Headers, told: dict[str, str]) -> Client | None:
        """Who asks; None for a preflight, which `told` answers. `told` collects headers for whatever the answer is.

        Raises `Forbidden`, `Unauthorized`, `LimitReached`.
        """
        if (inner := scope["state"].get("client")) is not None:  # where no request from outside can put anything
            return self.authenticator.recall(inner)
        check_host(headers, self._names)
        origin = check_origin(headers, self._origins)
        if origin is not None:
            told.update(cors_headers(origin))
            if is_preflight(scope["method"], headers):
                told.update(preflight_headers(origin, headers))
                return None
        address = scope["client"][0] if scope.get("client") else ""
        return self.authenticator.admit(scope["path"], headers, address, told)
