"""Many clients at once, each with connections of its own, and what became of each of their requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from soak_asks import FILES, Ask, Mix, draw

NO_ROOM = frozenset({429, 503})
LONGEST = 600.0  # seconds for a whole answer, as OpenAI's own client waits; later ones have no end
LONGEST_WAIT = 5.0  # seconds, before a client that was refused asks again
KEEP_ALIVE = 2.0  # seconds: less than the server's, so that no request is sent into a connection that it closes


class BrokenAnswer(Exception):
    """An answer that began with 200 and is not what was asked for."""


@dataclass(slots=True)
class Answer:
    """What became of a request. Moments are those of time.perf_counter().

    `outcome` is a status, "hung up" for a client that left as it meant to, "server gone" for one whose server was
    killed, "connection cut", "no end" or "broken: ..."; `good` whether that may be.
    """

    kind: str
    sent: float
    ended: float = 0.0
    outcome: str = ""
    good: bool = True
    said: str = ""  # of what is not good
    times: list[float] = field(default_factory=list)  # of each piece of text, about one a token


@dataclass(slots=True)
class Target:
    """Where the clients ask, and when nothing can have answered there."""

    base_url: str
    keys: Sequence[str] = ("any",)
    down: list[tuple[float, float]] = field(default_factory=list)  # from a kill until the next server is ready

    def was_down(self, start: float, end: float) -> bool:
        """Whether the server was, at some moment between the two."""
        return any(start <= ready and end >= killed for killed, ready in self.down)


class Clients:
    """`count` clients of `target`, which ask until `stop`; `uploaded` is told each file that the server promised."""

    def __init__(
        self,
        target: Target,
        mix: Mix,
        *,
        count: int,
        seed: int,
        pause: float = 1.0,
        uploaded: Callable[[str, str, bytes], None] | None = None,
    ) -> None:
        self.answers: list[Answer] = []
        self._target, self._mix, self._count, self._seed, self._pause = target, mix, count, seed, pause
        self._uploaded = uploaded
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Clients:
        tls = ssl.create_default_context()  # one for all: making it takes longer than a request
        self._tasks = [asyncio.create_task(self._client(number, tls)) for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nobody asks any more; what was asked is waited for. Raises what broke a client."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int, tls: ssl.SSLContext) -> None:
        chance = random.Random(f"{self._seed} {number}")
        key = self._target.keys[number % len(self._target.keys)]
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(verify=tls, timeout=LONGEST, limits=limits, headers=headers) as client:
            await self._sleep(chance.uniform(0, self._pause))
            while not self._over.is_set():
                answer = await self._ask(client, draw(chance, self._mix), key)
                self.answers.append(answer)
                refused = not answer.outcome.startswith(("2", "4")) or answer.outcome == "429"
                await self._sleep(LONGEST_WAIT * chance.random() if refused else chance.expovariate(1 / self._pause))

    async def _sleep(self, seconds: float) -> None:
        """So long, but not beyond the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _ask(self, client: httpx.AsyncClient, ask: Ask, key: str) -> Answer:
        answer = Answer(ask.kind, time.perf_counter())
        try:
            async with asyncio.timeout(LONGEST):
                await self._exchange(client, ask, answer, key)
        except (TimeoutError, httpx.TimeoutException):
            answer.outcome, answer.good = "no end", False
        except httpx.TransportError as error:
            gone = self._target.was_down(answer.sent, time.perf_counter())
            answer.outcome = "server gone" if gone else "connection cut"
            answer.good, answer.said = gone or ask.may_be_cut, f"{type(error).__name__}: {error}"
        except (BrokenAnswer, ValueError, KeyError, IndexError, TypeError) as error:
            gone = self._target.was_down(answer.sent, time.perf_counter())
            answer.outcome, answer.good = "server gone" if gone else "broken", gone
            answer.said = f"{type(error).__name__}: {error}"
        answer.ended = time.perf_counter()
        return answer

    async def _exchange(self, client: httpx.AsyncClient, ask: Ask, answer: Answer, key: str) -> None:
        async with client.stream("POST", self._target.base_url + ask.path, **_content(ask)) as response:
            answer.outcome = str(response.status_code)
            if response.status_code == 200 and ask.stream:
                await _read_stream(response, ask, answer)
                return
            body = await response.aread()
            answer.good = response.status_code in ask.expected | NO_ROOM
            if not answer.good or response.status_code != 200:
                answer.said = body[:300].decode(errors="replace")
                return
        document = json.loads(body)
        if self._uploaded and isinstance(ask.body, bytes) and ask.path == FILES:
            self._uploaded(key, document["id"], ask.body)
        if ask.valid and not ask.valid(document):
            raise BrokenAnswer(body[:300].decode(errors="replace"))


def _content(ask: Ask) -> dict[str, Any]:
    """The request's body, as httpx wants it."""
    if ask.path == FILES:
        return {"files": {"file": ("file", ask.body)}, "data": {"purpose": "user_data"}}
    content = ask.body if isinstance(ask.body, bytes) else json.dumps(ask.body).encode()
    return {"content": content, "headers": {"Content-Type": "application/json"} | dict(ask.headers)}


async def _read_stream(response: httpx.Response, ask: Ask, answer: Answer) -> None:
    """As far as this client reads. Raises `BrokenAnswer` for an error in the stream and for one without an end."""
    async for event in _events(response):
        if "error" in event:
            raise BrokenAnswer(f"the stream told of an error: {event['error']}")
        for choice in event["choices"]:
            if choice["delta"].get("content"):
                answer.times.append(time.perf_counter())
        if ask.pause and len(answer.times) == 1:
            await asyncio.sleep(ask.pause)
        if ask.pieces is not None and len(answer.times) >= ask.pieces:
            answer.outcome = "hung up"
            return


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
    raise BrokenAnswer("the stream ended early")
