"""On which terms a request is served: for whom, how urgently, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """The classes of requests, the more urgent first."""

    INTERACTIVE = 0  # somebody waits for it
    BATCH = 1  # takes what the others leave, and a small share of its own

    @property
    def label(self) -> str:
        """Its name, as in metrics and requests."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one request. `client` is any name: requests that share it share a turn. `deadline` is a moment of
    `time.monotonic`: a request that has no token by then is refused, an answer that is being written ends.
    """

    client: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None


DEFAULT_TERMS = Terms()
