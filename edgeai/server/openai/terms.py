"""On which terms a request is served: who asks, how urgent it is, and how long it may take.

For any API: `terms_of` takes what the body says, and looks at the head for the rest.
"""

from __future__ import annotations

import hashlib
import math
import time
from typing import Literal, Protocol

from starlette.requests import Request

from edgeai.engine.terms import Priority, Terms
from edgeai.errors import InvalidInput

TIMEOUT_HEADER = "x-request-timeout"  # seconds; a field of the body wins
MAX_TIMEOUT = 86_400.0
BATCH_TIER = "flex"  # OpenAI's name for what may take its time; all other tiers are one here


class TermFields(Protocol):
    """What a body may say. None leaves it to the defaults: interactive, and no deadline."""

    @property
    def service_tier(self) -> str | None:
        """OpenAI's."""
        ...

    @property
    def priority(self) -> int | Literal["interactive", "batch"] | None:
        """A number as vLLM has it, 0 or less for what is urgent, more for what is not; or a class by name."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds from the arrival of the request to the end of its answer."""
        ...


def terms_of(request: Request, body: TermFields) -> Terms:
    """The terms of a request that has just arrived. Raises `InvalidInput`."""
    timeout = body.timeout if body.timeout is not None else _timeout_header(request)
    deadline = None if timeout is None else time.monotonic() + timeout
    return Terms(client_of(request), _priority(body), deadline)


def client_of(request: Request) -> str:
    """Who asks, for fair shares: whom the guard at the door found, else a digest of the key, else the address.

    The key itself is nobody's business further in.
    """
    known = request.scope.get("state", {}).get("client")
    if known is not None:
        return str(known)
    authorization = request.headers.get("authorization")
    if authorization:
        return hashlib.sha256(authorization.encode()).hexdigest()[:32]
    return request.client.host if request.client else ""


def _priority(body: TermFields) -> Priority:
    """A priority is more exact than a tier."""
    if isinstance(body.priority, str):
        return Priority[body.priority.upper()]
    if body.priority is not None:
        return Priority.BATCH if body.priority > 0 else Priority.INTERACTIVE
    return Priority.BATCH if body.service_tier == BATCH_TIER else Priority.INTERACTIVE


def _timeout_header(request: Request) -> float | None:
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT:
        raise InvalidInput(f"{TIMEOUT_HEADER} is {text!r}, but must be seconds, more than 0", param=TIMEOUT_HEADER)
    return seconds
