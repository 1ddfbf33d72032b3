"""How often and how much each client may ask: requests a minute, and tokens a day that survive a restart."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import OutOfDisk
from edgeai.package.durable import write_file

log = logging.getLogger("edgeai.keys")

MINUTE = 60.0
DAY = 86_400
MAX_CLIENTS = 4096  # addresses without keys can be many
FILE_NAME = "token-usage.json"
SAVE_SECONDS = 300.0  # between two writes, unless much was used
SAVE_PART = 20  # of a quota: what a power cut may make forgotten


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit; `wait` is seconds until the next request may come (0: now), `reset` until all may."""

    limit: int
    remaining: int
    wait: float
    reset: float


class RequestRates:
    """A bucket for each client: as many requests at once as in a minute, refilled steadily."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and when that was

    def take(self, client: str, per_minute: int) -> Allowance:
        """Count a request, if there is any left."""
        now = self._clock()
        left, before = self._buckets.pop(client, (per_minute, now))
        left = min(per_minute, left + (now - before) * per_minute / MINUTE)
        taken = left >= 1
        left -= taken
        if len(self._buckets) >= MAX_CLIENTS:
            del self._buckets[next(iter(self._buckets))]  # whoever has not asked for longest
        self._buckets[client] = left, now
        second = per_minute / MINUTE
        return Allowance(per_minute, int(left), 0.0 if taken else (1 - left) / second, (per_minute - left) / second)


class TokenLedger:
    """Tokens that each key has used today (UTC), in a file that is written now and then.

    A power cut forgets at most what was used since: a twentieth of a quota, or the last five minutes if that is less.
    """

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = home / FILE_NAME
        self._clock = clock
        self._lock = threading.Lock()
        self._day, self._used = self._load()
        self._unsaved: dict[str, int] = {}
        self._saved_at = time.monotonic()

    def left(self, client: str, quota: int) -> Allowance:
        """What is left of today's tokens."""
        self._turn_day()
        left = max(0, quota - self._used.get(client, 0))
        midnight = DAY - self._clock() % DAY
        return Allowance(quota, left, 0.0 if left else midnight, midnight)

    def add(self, client: str, tokens: int, quota: int) -> bool:
        """Count tokens. Whether so much is not written yet that it is time for `save`."""
        self._turn_day()
        self._used[client] = self._used.get(client, 0) + tokens
        self._unsaved[client] = self._unsaved.get(client, 0) + tokens
        much = self._unsaved[client] * SAVE_PART >= quota
        return much or time.monotonic() - self._saved_at >= SAVE_SECONDS

    def save(self) -> Callable[[], None] | None:
        """What writes the counts, to be called in a thread, for a disk may be slow; None if all is written."""
        if not self._unsaved:
            return None
        self._unsaved, self._saved_at = {}, time.monotonic()
        document = json.dumps({"day": self._day, "tokens": self._used}).encode()
        return lambda: self._write(document)

    def _write(self, document: bytes) -> None:
        """A disk that is full is told; the next write has these counts as well."""
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_file(self._path, document, mode=0o600)
            except (OSError, OutOfDisk) as error:
                log.warning("counts of tokens are not saved: %s", error)

    def _turn_day(self) -> None:
        today = math.floor(self._clock() / DAY)
        if today != self._day:  # also when a clock was set back: nobody waits for a day that is over
            self._day, self._used, self._unsaved = today, {}, {}

    def _load(self) -> tuple[int, dict[str, int]]:
        try:
            document = json.loads(self._path.read_bytes())
            return int(document["day"]), {str(key): int(used) for key, used in document["tokens"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("today's counts of tokens begin anew: %s: %s", self._path, error)
        return 0, {}
