"""A server under a memory limit, and clients that ask it and compare what it answers."""

from __future__ import annotations

import http.client
import json
import math
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from memory_limit import LimitedBox
from patience import PATIENCE

TEXT = (
    "river mountain lantern window quiet yellow engine paper winter garden bridge morning salt thunder copper "
    "bread harbour letter silver forest candle market shadow ladder orange train violin pocket island feather "
)
WORDS = TEXT.split()
ANSWER_TOKENS = 48
NEAR_TIE = 0.5  # nats; int4 kernels round differently at other row counts, which decides only between near equals


@dataclass(frozen=True)
class Answer:
    """Tokens with the logprobs of their alternatives; or the status and Retry-After of a refusal."""

    status: int
    retry_after: str | None = None
    tokens: tuple[tuple[str, dict[str, float]], ...] = ()


class LimitedServer:
    """`edgeai serve` in a box. `log` has all that it said."""

    def __init__(self, box: LimitedBox, package: Path, *options: str) -> None:
        command = [sys.executable, "-m", "edgeai", "serve", "--model", str(package), "--port", "0", "--kv-disk", "0"]
        self.process = box.start([*command, *options], stderr=-1)
        self.log: list[str] = []
        self.refusals = 0  # with 503, by which clients are told to come again
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self.process.stderr is not None  # noqa: S101
        threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True).start()
        self.port = self._wait_for_port()

    @property
    def ready(self) -> bool:
        return self.port is not None

    @property
    def killed(self) -> bool:
        return self.process.poll() in (-9, 137)

    def ask(self, prompt: str, timeout: float = 600) -> Answer:
        """The greedy continuation of a prompt. Raises OSError when the server is gone."""
        body = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0, "logprobs": 5}
        body |= {"repetition_penalty": 1, "logit_bias": {}}
        status, headers, document = self._request("POST", "/v1/completions", body, timeout)
        if status != 200:
            return Answer(status, headers.get("retry-after"))
        logprobs = document["choices"][0]["logprobs"]
        return Answer(200, None, tuple(zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)))

    def ask_all(self, prompts: Sequence[str]) -> list[Answer]:
        """All at once, each by a client of its own, which comes back as often as it is told to."""
        with ThreadPoolExecutor(len(prompts)) as clients:
            return list(clients.map(self._ask_until_answered, prompts))

    def health(self) -> dict[str, Any]:
        document: dict[str, Any] = self._request("GET", "/health", None, PATIENCE)[2]
        return document

    def _ask_until_answered(self, prompt: str) -> Answer:
        while (answer := self.ask(prompt)).status == 503:
            self.refusals += 1
            time.sleep(float(answer.retry_after or 1))
        return answer

    def _request(self, method: str, path: str, body: Any, timeout: float) -> tuple[int, Any, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.headers, json.loads(response.read())
        finally:
            connection.close()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.log.append(line.rstrip())
            self._lines.put(line)
        self._lines.put(None)

    def _wait_for_port(self, seconds: float = PATIENCE) -> int | None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            if line is None:
                self.process.wait()
                return None
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                return int(found[1])
        return None


def prompts(count: int, words: int, seed: int = 0) -> list[str]:
    """Different texts of so many words, no two with a common beginning."""
    chance = random.Random(seed)  # noqa: S311
    return [f"{number}. " + " ".join(chance.choices(WORDS, k=words)) for number in range(count)]


def tie(one: Answer, other: Answer) -> float | None:
    """By how many nats `one` preferred its token where two greedy answers part; None where they never do.

    Behind that token each goes on in its own way. Infinite when the other's choice was not among the likely ones.
    """
    for (token, likely), (else_token, _) in zip(one.tokens, other.tokens, strict=False):
        if token != else_token:
            return likely[token] - likely[else_token] if else_token in likely else math.inf
    return None if len(one.tokens) == len(other.tokens) else math.inf


def same(one: Answer, other: Answer) -> bool:
    """Whether two greedy answers are equal, or up to a near tie."""
    return one.status == other.status and (tie(one, other) or 0.0) < NEAR_TIE


def equal(one: Answer, other: Answer) -> bool:
    """Whether two answers are the same to the token."""
    return [token for token, _ in one.tokens] == [token for token, _ in other.tokens]
