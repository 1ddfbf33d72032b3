"""Fair shares by virtual token counters (VTC; Sheng et al. 2024, "Fairness in Serving Large Language Models").

Everybody has a counter of what they have been served, and whoever waits and has the least is next. Who comes back after
a while of wanting nothing is lifted to the least of those who wait: nobody saves up turns by being away. Among those
who always wait, what they were served then differs by no more than twice the most that is under way for one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

MOST_COUNTERS = 4096  # kept for names that are gone; more are forgotten, which forgives what they were ahead

Name = TypeVar("Name", bound=Hashable)


class FairShare(Generic[Name]):
    """The counters. Who waits is known by whoever asks."""

    def __init__(self) -> None:
        self._served: dict[Name, float] = {}
        self._last: Name | None = None  # who stopped waiting last

    def served(self, name: Name) -> float:
        """What counts as served to `name`."""
        return self._served.get(name, 0.0)

    def charge(self, name: Name, amount: float) -> None:
        """`name` was served `amount` more."""
        self._served[name] = self.served(name) + amount

    def join(self, name: Name, waiting: Collection[Name]) -> None:
        """`name` begins to wait, beside those who are `waiting` already."""
        others = [self.served(other) for other in waiting if other != name]
        if not others and self._last is not None:
            others = [self.served(self._last)]
        if len(self._served) >= MOST_COUNTERS:
            kept = {*waiting, name, *(() if self._last is None else (self._last,))}
            self._served = {each: amount for each, amount in self._served.items() if each in kept}
        self._served[name] = max(self.served(name), min(others, default=0.0))

    def leave(self, name: Name) -> None:
        """`name` does not wait any more."""
        self._last = name
