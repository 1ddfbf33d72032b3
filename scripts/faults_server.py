"""A real `edgeai serve` to be treated badly, and questions whose answers are known."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patience import PATIENCE

TOLERANCE = 0.25  # log probability: what kernels' rounding may move; a wrong block moves whole units
CLEAR = 1.0  # by which each token of a golden answer leads: no near-tie that rounding could decide
_WORDS = """water clinic answer always person family doctor please village open hour child number table river mountain
letter window garden winter summer morning bread silver yellow market station bridge island music paper"""
WORDS = _WORDS.split()


def rules(seed: int) -> str:
    """A list of words with numbers, one for each line, the same for the same seed."""
    chance = random.Random(seed)
    return "".join(f"{word}: {chance.randrange(1000, 10000)}\n" for word in chance.sample(WORDS, 24))


def quotation(seed: int) -> str:
    """A list and its beginning once more: what follows stands there already, so the answer is sure if it was read."""
    text, lines = rules(seed), random.Random(seed).randrange(3, 20)
    again = "".join(text.splitlines(keepends=True)[:lines])
    return f"{text}\nThe same list once more:\n\n{again}"


@dataclass(frozen=True)
class Answer:
    """Tokens with their log probabilities, by how much the least clear one leads, and what needed no computing."""

    tokens: list[str]
    logprobs: list[float]
    lead: float
    cached: int


@dataclass(frozen=True)
class Golden:
    """A question and what is right to answer."""

    seed: int
    answer: Answer

    def check(self, server: Server) -> Answer:
        """Ask again. Raises RuntimeError for anything else than the right answer."""
        answer = server.ask(self.seed)
        if answer.tokens != self.answer.tokens:
            raise RuntimeError(f"answered {answer.tokens} instead of {self.answer.tokens}")
        apart = max(abs(a - b) for a, b in zip(answer.logprobs, self.answer.logprobs, strict=True))
        if apart > TOLERANCE:
            raise RuntimeError(f"right tokens, but their log probabilities are {apart:.2f} off")
        return answer


class Server:
    """A served package in a process of its own; everything it says goes to `log`."""

    def __init__(
        self, package: Path, home: Path, log: Path, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "edgeai", "serve", "--model", str(package), "--port", str(self.port)]
        environment = os.environ | {"EDGEAI_HOME": str(home)} | dict(env or {})
        with log.open("ab") as file:
            self.process = subprocess.Popen([*command, *options], stdout=file, stderr=file, env=environment)

    def ready(self) -> Server:
        """Wait until it answers. Raises RuntimeError when it ends or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-600:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=PATIENCE).close()
            except OSError:
                time.sleep(0.02)
                continue
            return self
        raise RuntimeError(f"the server was not ready after {PATIENCE:.0f} s")

    def ask(self, seed: int) -> Answer:
        """The greedy continuation of that seed's text. Raises RuntimeError where there is none."""
        body = {"prompt": quotation(seed), "temperature": 0, "repetition_penalty": 1.0, "max_tokens": 12, "logprobs": 2}
        try:
            with self._post("completions", body) as response:
                document = json.load(response)
        except OSError as error:
            raise RuntimeError(f"no answer: {error}") from error
        found = document["choices"][0]["logprobs"]
        leads = [one - other for one, other in (sorted(top.values())[:-3:-1] for top in found["top_logprobs"])]
        cached = document["usage"]["prompt_tokens_details"]["cached_tokens"]
        return Answer(found["tokens"], found["token_logprobs"], min(leads), cached)

    def stream(self, seed: int) -> None:
        """A client that reads until the answer or the server ends."""
        system = {"role": "system", "content": rules(seed)}
        question = {"role": "user", "content": "Why is the sky blue?"}
        try:
            body = {"messages": [system, question], "stream": True, "max_tokens": 200}
            with self._post("chat/completions", body) as response:
                for _ in response:
                    pass
        except (OSError, ValueError):  # the server was killed: what this is for
            return

    def kill(self) -> None:
        """Without any warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError("the server did not stop when it was told to") from None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self.port}/v1/{route}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        return urllib.request.urlopen(request, timeout=PATIENCE)


def goldens(server: Server, count: int) -> list[Golden]:
    """Questions whose answers no rounding can change. Raises RuntimeError when the model has too few of them."""
    found: list[Golden] = []
    for seed in range(40 * count):
        answer = server.ask(seed)
        if answer.lead > CLEAR:
            found.append(Golden(seed, answer))
        if len(found) == count:
            return found
    raise RuntimeError(f"only {len(found)} of {40 * count} answers are clear enough to be compared")
