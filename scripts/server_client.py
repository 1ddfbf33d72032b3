"""A client of the servers: single requests, and chats that are streamed, one or several at once, with their times."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from patience import PATIENCE

# Said in full, so that both servers sample alike. Free text: greedy answers of small models go round in circles.
SAMPLING = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.0,
    "repeat_penalty": 1.0,  # llama-server's name
    "repetition_penalty": 1.0,  # edgeai's
}


@dataclass(frozen=True, slots=True)
class Response:
    """Of a request that is not streamed."""

    status: int
    headers: Message
    document: dict[str, Any]


def call(
    base_url: str, path: str, body: Mapping[str, Any] | None = None, *, key: str = "any", timeout: float = PATIENCE
) -> Response:
    """POST of a body, GET without one. Raises OSError and http.client.HTTPException when the server is gone."""
    with _asked(base_url, path, body, timeout=timeout, Authorization=f"Bearer {key}") as response:
        return Response(response.status, response.headers, json.loads(response.read()))


@dataclass(slots=True)
class Reply:
    """An answer as it came. Moments are those of time.perf_counter()."""

    sent: float
    pieces: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of each piece of text, about one a token
    usage: Mapping[str, Any] = field(default_factory=dict)  # as the server counted; empty until an answer's end

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def first_token(self) -> float:
        return self.times[0]

    @property
    def last_token(self) -> float:
        return self.times[-1]

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens", 0))

    @property
    def cached_tokens(self) -> int:
        """Those of the prompt that needed no computing."""
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))

    @property
    def tokens(self) -> int:
        """Of the answer."""
        return int(self.usage.get("completion_tokens", 0))


def chat(
    base_url: str,
    text: str,
    *,
    max_tokens: int,
    before: Sequence[Mapping[str, str]] = (),
    seed: int = 1,
    key: str = "any",
    hang_up: Event | None = None,
    **fields: Any,
) -> Reply:
    """One question after the messages `before`, its answer streamed; as far as it came, when `hang_up` is set.

    Raises `RuntimeError` for any other status than 200 and for a stream that tells of an error or ends early, OSError
    and http.client.HTTPException when the server is gone.
    """
    messages = [*before, {"role": "user", "content": text}]
    body: dict[str, Any] = {"messages": messages, "max_tokens": max_tokens, "seed": seed}
    body |= SAMPLING | {"stream": True, "stream_options": {"include_usage": True}} | fields
    reply = Reply(time.perf_counter())
    with _asked(base_url, "/v1/chat/completions", body, Authorization=f"Bearer {key}") as response:
        if response.status != 200:
            raise RuntimeError(f"{base_url} answered {response.status}: {response.read()!r}")
        _read(response, reply, hang_up or Event())
    return reply


def chats(base_url: str, texts: Sequence[str], *, max_tokens: int, seed: int = 1, **fields: Any) -> list[Reply]:
    """All questions at once, each from a client of its own."""
    with ThreadPoolExecutor(len(texts)) as pool:
        asked = [
            pool.submit(chat, base_url, text, max_tokens=max_tokens, seed=seed + number, **fields)
            for number, text in enumerate(texts)
        ]
        return [reply.result() for reply in asked]


@contextmanager
def _asked(
    base_url: str, path: str, body: Mapping[str, Any] | None, *, timeout: float = PATIENCE, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"} | headers)
        yield connection.getresponse()
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, reply: Reply, hang_up: Event) -> None:
    for event in _events(response):
        now = time.perf_counter()
        if hang_up.is_set():
            return
        if "error" in event:
            raise RuntimeError(f"a stream told of an error: {event['error']!r}")
        reply.usage = event.get("usage") or reply.usage
        for choice in event["choices"]:
            if piece := choice["delta"].get("content"):
                reply.pieces.append(piece)
                reply.times.append(now)
    if not reply.times:  # a model may have nothing to say
        reply.times.append(time.perf_counter())


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Server-sent events up to the last one. Raises `RuntimeError` when the stream ends before."""
    for line in response:
        if line.startswith(b"data: [DONE]"):
            return
        if line.startswith(b"data: ") and line.endswith(b"\n"):  # else it was cut in the middle
            yield json.loads(line[len(b"data: ") :])
    raise RuntimeError("a stream ended early")
