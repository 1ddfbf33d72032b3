"""One API key: what is kept of it, and how a secret is told to be its own.

A secret is 256 random bits, so nobody can guess it, and a fast hash is as good as a slow one: scrypt makes guessing of
passwords dear, which have perhaps 40 bits, and would cost every request as much. A salt of its own keeps two keys from
being compared.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from edgeai.errors import InvalidInput

PREFIX = "sk-edgeai-"
SCOPES = ("chat", "embed", "models", "metrics", "bundles", "admin")  # admin: everything
DEFAULT_SCOPES = ("chat", "embed", "models")
MAX_NAME = 64
_ID_BYTES = 4
_SECRET_BYTES = 32
_SALT_BYTES = hashlib.blake2b.SALT_SIZE
_FORM = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})-([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept: never the secret. `id` is no secret; logs and counts name a key by it. Times are Unix seconds."""

    id: str
    name: str
    salt: str
    digest: str
    scopes: tuple[str, ...]
    created: int
    expires: int | None = None
    requests_per_minute: int | None = None  # None: the server's setting
    tokens_per_day: int | None = None

    @classmethod
    def create(
        cls,
        name: str,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        *,
        expires: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_day: int | None = None,
    ) -> tuple[Self, str]:
        """A new key, and its secret, which nobody can be told again. Raises `InvalidInput`."""
        chosen = tuple(scope for scope in SCOPES if scope in set(scopes))
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise InvalidInput(f"there is no scope {unknown[0]!r}", f"scopes are {', '.join(SCOPES)}", param="scope")
        if not chosen:
            raise InvalidInput("a key needs a scope", f"scopes are {', '.join(SCOPES)}", param="scope")
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
            raise InvalidInput(f"{name!r} is no name for a key", f"use 1 to {MAX_NAME} letters", param="name")
        for limit in (requests_per_minute, tokens_per_day):
            if limit is not None and limit < 1:
                raise InvalidInput(f"{limit} is no limit", "use at least 1", param="limit")
        blank = cls(
            secrets.token_hex(_ID_BYTES), name, "", "", chosen, int(time.time()), expires, requests_per_minute,
            tokens_per_day,
        )  # fmt: skip
        return blank.rotated()

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """As `as_dict` wrote it. Raises `TypeError` and `KeyError` for anything else."""
        return cls(**{**document, "scopes": tuple(document["scopes"])})

    def as_dict(self) -> dict[str, Any]:
        """As the file keeps it."""
        return asdict(self)

    def rotated(self) -> tuple[Self, str]:
        """The same key with another secret, and that secret."""
        salt, secret = secrets.token_bytes(_SALT_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        return replace(self, salt=salt.hex(), digest=_digest(secret, salt)), f"{PREFIX}{self.id}-{secret}"

    def matches(self, secret: str) -> bool:
        """Whether the secret part is this key's; takes as long for a near miss as for nonsense."""
        return hmac.compare_digest(_digest(secret, bytes.fromhex(self.salt)), self.digest)

    def expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires

    def allows(self, scope: str) -> bool:
        """Whether it may be used for that."""
        return scope in self.scopes or "admin" in self.scopes


def split_key(text: str) -> tuple[str, str] | None:
    """Id and secret part of what a client sent; None for what is no key."""
    found = _FORM.fullmatch(text)
    return (found[1], found[2]) if found else None


def _digest(secret: str, salt: bytes) -> str:
    return hashlib.blake2b(secret.encode(), salt=salt, digest_size=32, person=b"edgeai key").hexdigest()
