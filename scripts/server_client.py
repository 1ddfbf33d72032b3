"""A client of the servers under measurement: chats that are streamed, one or several at once, and when tokens came."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# Said in full, so that both servers sample alike. Free text: greedy answers of small models go round in circles.
SAMPLING = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.0,
    "repeat_penalty": 1.0,  # llama-server's name
    "repetition_penalty": 1.0,  # edgeai's
}
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    text: str
    first_token: float  # time.perf_counter() at the first piece of text
    last_token: float  # and at the last
    prompt_tokens: int
    tokens: int  # of the answer


def chat(base_url: str, text: str, *, max_tokens: int, seed: int = 1, **fields: Any) -> Reply:
    """One question, its answer streamed. Raises `RuntimeError` for any other status than 200."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "seed": seed}
    body |= SAMPLING | {"stream": True, "stream_options": {"include_usage": True}} | fields
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{base_url} answered {response.status}: {response.read()!r}")
        return _read(response)
    finally:
        connection.close()


def chats(base_url: str, texts: Sequence[str], *, max_tokens: int, seed: int = 1, **fields: Any) -> list[Reply]:
    """All questions at once, each from a client of its own."""
    with ThreadPoolExecutor(len(texts)) as pool:
        asked = [
            pool.submit(chat, base_url, text, max_tokens=max_tokens, seed=seed + number, **fields)
            for number, text in enumerate(texts)
        ]
        return [reply.result() for reply in asked]


def _read(response: http.client.HTTPResponse) -> Reply:
    pieces: list[str] = []
    times: list[float] = []
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[len(b"data: ") :])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            piece = choice["delta"].get("content")
            if piece:
                pieces.append(piece)
                times.append(time.perf_counter())
    times = times or [time.perf_counter()]  # a model may have nothing to say
    return Reply("".join(pieces), times[0], times[-1], usage["prompt_tokens"], usage["completion_tokens"])
