"""How many bytes of request bodies may be in memory: each becomes text, prompt and tokens, several times over."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from edgeai.device.budget import reserve_bytes
from edgeai.device.profile import Memory

MAX_BODY_BYTES = 8 << 20  # of one request, where there is memory for it
LEAST_BYTES = 512 << 10  # of all requests together, however little memory there is
RESERVE_PARTS = 8  # the reserve holds so many copies of all bodies
RETRY_SECONDS = 1


class BodyBudget:
    """Counts the bytes of the bodies that are being answered: at most `together`, and `each` of one request."""

    def __init__(self, each: int = MAX_BODY_BYTES, together: int = 8 * MAX_BODY_BYTES) -> None:
        self.each = min(each, together)
        self.held = 0
        self._together = together

    @classmethod
    def of(cls, memory: Memory) -> BodyBudget:
        """What the part of memory that stays free for such things allows."""
        return cls(MAX_BODY_BYTES, max(LEAST_BYTES, reserve_bytes(memory) // RESERVE_PARTS))

    def check(self, size: int, already: int = 0) -> None:
        """Whether `size` more bytes of a body may come. Raises `HTTPException`: 413, or 503 while others hold much."""
        if already + size > self.each:
            # The rest of the body is not read: the connection cannot be used again.
            raise HTTPException(413, f"the body is larger than {self.each} bytes", {"connection": "close"})
        if self.held + size > self._together:
            headers = {"connection": "close", "retry-after": str(RETRY_SECONDS)}
            raise HTTPException(503, "too many long requests are being read (try again soon)", headers)

    def take(self, size: int) -> None:
        """Count bytes that have come."""
        self.held += size

    def give_back(self, size: int) -> None:
        """The request they belonged to is over."""
        self.held -= size
