"""Traffic for a server under load: several clients at once, what became of each request, and when it was sent.

What is drawn follows from a seed. No two prompts have a common beginning, so that no cache can answer for a server.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from server_client import Reply, chat
from words import some_words

JOIN_SECONDS = 120.0  # for clients that hang up: a server sees it at the next token


class Texts:
    """Questions of about so many words, every one new."""

    def __init__(self, seed: int) -> None:
        self._chance, self._lock = random.Random(seed), threading.Lock()  # noqa: S311

    def __call__(self, words: int) -> str:
        with self._lock:
            number, chosen = self._chance.randrange(10**9), some_words(self._chance, words)
        return f"{number}: {chosen}. Write a long story with these words."


def arrivals(seed: int, *, rate: float, seconds: float) -> list[float]:
    """Moments of a Poisson process of `rate` a second, from 0 to `seconds`."""
    chance, found, now = random.Random(seed), [], 0.0  # noqa: S311
    while (now := now + chance.expovariate(rate)) < seconds:
        found.append(now)
    return found


class Traffic:
    """Requests to one server. At the end of the context, clients that still ask hang up.

    `replies` has every answer by client, also the unfinished ones of those who hung up; `failures` what else came.
    """

    def __init__(self, base_url: str, seed: int) -> None:
        self.base_url, self.seed, self.texts = base_url, seed, Texts(seed)
        self.replies: dict[str, list[Reply]] = defaultdict(list)
        self.failures: dict[str, list[str]] = defaultdict(list)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, client: str, *, words: int, max_tokens: int, key: str | None = None, **fields: Any) -> Reply | None:
        """One request and its answer; None when there was none. The API key is the client's name unless told."""
        text = self.texts(words)
        try:
            reply = chat(
                self.base_url,
                text,
                max_tokens=max_tokens,
                seed=self.seed,
                key=key or client,
                hang_up=self._over,
                cache_prompt=False,  # llama-server's name for its prefix cache
                **fields,
            )
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            self.failures[client].append(f"{type(error).__name__}: {error}")
            return None
        self.replies[client].append(reply)
        return reply

    def keep_asking(self, client: str, count: int, **request: Any) -> None:
        """From now on, always `count` requests at once."""
        for _ in range(count):
            self._start(self._repeat, client, request)

    def ask_at(self, client: str, moments: Sequence[float], **request: Any) -> None:
        """A request at each moment, in seconds from now, whether or not others are answered; until all of them are."""
        started, asked = time.perf_counter(), []
        for moment in moments:
            time.sleep(max(0.0, started + moment - time.perf_counter()))
            asked.append(self._start(self.ask, client, **request))
        for thread in asked:
            thread.join()

    def requests(self) -> int:
        """How many came to an end, good or bad."""
        return sum(map(len, self.replies.values())) + sum(map(len, self.failures.values()))

    def _start(self, what: Any, *arguments: Any, **named: Any) -> threading.Thread:
        thread = threading.Thread(target=what, args=arguments, kwargs=named, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _repeat(self, client: str, request: dict[str, Any]) -> None:
        while not self._over.is_set():
            if self.ask(client, **request) is None:
                self._over.wait(1.0)  # what was refused is tried again, but not at once

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                raise SystemExit("a client that hung up was kept waiting by the server")


def gaps(replies: Sequence[Reply], start: float, end: float) -> Iterator[float]:
    """Seconds between the pieces of each answer, of all that reach into the time from `start` to `end`."""
    for reply in replies:
        for before, after in zip(reply.times, reply.times[1:], strict=False):
            if after > start and before < end:
                yield after - before


def pieces(replies: Sequence[Reply], start: float, end: float) -> int:
    """Pieces of answers that came from `start` to `end`."""
    return sum(start <= moment < end for reply in replies for moment in reply.times)
