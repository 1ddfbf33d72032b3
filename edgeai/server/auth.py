"""Who asks: the API key of a request, what it may be used for, and how much of its limits is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers

from edgeai.config import ServerSettings
from edgeai.errors import Forbidden, LimitReached, Unauthorized
from edgeai.keys.key import ApiKey
from edgeai.keys.limits import Allowance, RequestRates, TokenLedger
from edgeai.keys.store import KeyStore

# What a key must allow, by the beginning of the path; longer ones first. None: no key is needed.
SCOPES: tuple[tuple[str, str | None], ...] = (
    ("/health", None),
    ("/web/", None),
    ("/sw.js", None),
    ("/metrics", "metrics"),
    ("/status", "models"),
    ("/bundles", "bundles"),
    ("/openapi.json", "models"),
    ("/v1/models", "models"),
    ("/v1/embeddings", "embed"),
    ("/v1/rerank", "embed"),
    ("/v1/", "chat"),
    ("/tokenize", "chat"),
    ("/detokenize", "chat"),
    ("/api/tags", "models"),
    ("/api/show", "models"),
    ("/api/ps", "models"),
    ("/api/version", None),
    ("/api/embed", "embed"),
    *((f"/api/{action}", "admin") for action in ("copy", "create", "delete", "pull", "push")),
    ("/api/", "chat"),
)


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, for fairness and limits: the id of a key, or an address."""

    id: str
    tokens_per_day: int | None = None
    has_key: bool = False


def scope_of(path: str) -> str | None:
    """What a key must allow for a path; None needs no key. Paths that nobody thought of need `admin`."""
    if path == "/":
        return None
    return next((scope for beginning, scope in SCOPES if path.startswith(beginning)), "admin")


class Authenticator:
    """Tells clients apart by key, or by address where no key is wanted, and counts what they ask for."""

    def __init__(self, keys: KeyStore | None, ledger: TokenLedger, settings: ServerSettings) -> None:
        """`keys` is None where everybody may ask."""
        self._keys = keys
        self._rates = RequestRates()
        self._ledger = ledger
        self.settings = settings

    @property
    def wants_keys(self) -> bool:
        """Whether clients need an API key."""
        return self._keys is not None

    def admit(self, path: str, headers: Headers, address: str, told: dict[str, str]) -> Client:
        """Who asks; headers that tell what is left go to `told`. Raises `Unauthorized`, `Forbidden`, `LimitReached`."""
        scope = scope_of(path)
        if scope is None:
            return Client(address)
        key = None if self._keys is None else self._known(self._keys, scope, headers)
        client = address if key is None else key.id
        quota = (key and key.tokens_per_day) or self.settings.tokens_per_day
        if quota is not None:
            self._check_tokens(client, quota, told)
        rate = (key and key.requests_per_minute) or self.settings.requests_per_minute
        if rate is not None:
            self._count_request(client, rate, told)
        return Client(client, quota, key is not None)

    def recall(self, client: str) -> Client:
        """A client whom a request of the server to itself is for, such as a line of a batch that it brought before.

        Raises `Unauthorized` if its key is gone, and `LimitReached` when its tokens are used.
        """
        key = None if self._keys is None else self._keys.all().get(client)
        if self._keys is not None and (key is None or key.expired(time.time())):
            raise Unauthorized("the API key that this was asked with is gone", "ask again with another")
        quota = (key and key.tokens_per_day) or self.settings.tokens_per_day
        if quota is not None:
            self._check_tokens(client, quota, {})
        return Client(client, quota, key is not None)

    def _known(self, keys: KeyStore, scope: str, headers: Headers) -> ApiKey:
        key = keys.verify(key_of(headers))
        if key is None:
            raise Unauthorized("this server wants an API key", "`edgeai keys create NAME` makes one")
        if not key.allows(scope):
            raise Forbidden(f"the key {key.name!r} is not for {scope}", f"it is for {', '.join(key.scopes)}")
        return key

    def _check_tokens(self, client: str, quota: int, told: dict[str, str]) -> None:
        left = self._ledger.left(client, quota)
        told |= _told("tokens", left)
        if left.wait:
            retry = math.ceil(left.wait)
            raise LimitReached(
                f"today's {quota} tokens are used", "more at midnight UTC", retry_after=retry, lasting=True
            )

    def _count_request(self, client: str, rate: int, told: dict[str, str]) -> None:
        left = self._rates.take(client, rate)
        told |= _told("requests", left)
        if left.wait:
            message = f"more than {rate} requests in a minute"
            raise LimitReached(message, "try again soon", retry_after=math.ceil(left.wait))

    def used(self, client: Client, tokens: int) -> Callable[[], None] | None:
        """Count a request's tokens; what is returned writes the counts and belongs into a thread."""
        if client.tokens_per_day is None or not tokens:
            return None
        due = self._ledger.add(client.id, tokens, client.tokens_per_day)
        return self._ledger.save() if due and self._keys is not None else None

    def close(self) -> None:
        """Write the counts of keys; addresses are not kept."""
        write = None if self._keys is None else self._ledger.save()
        if write is not None:
            write()


def key_of(headers: Headers) -> str:
    """What a request says as its key, as OpenAI's clients or as Anthropic's send it; "" for nothing."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


def _told(what: str, left: Allowance) -> dict[str, str]:
    """OpenAI's headers."""
    return {
        f"x-ratelimit-limit-{what}": str(left.limit),
        f"x-ratelimit-remaining-{what}": str(left.remaining),
        f"x-ratelimit-reset-{what}": f"{left.reset:.3f}s",
    }
