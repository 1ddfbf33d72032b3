"""A board on the network, or the server on this machine, as the commands for people ask it."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from edgeai.errors import EdgeaiError, NotFound, Overloaded

BOARD_VARIABLE, KEY_VARIABLE, CERTIFICATE_VARIABLE = "EDGEAI_BOARD", "EDGEAI_KEY", "EDGEAI_CERTIFICATE"
HERE = "http://127.0.0.1:8080"
PORT = 8080
LOOK_SECONDS = 2.0  # for a board that is asked for by name
PATIENCE = 600.0  # seconds without a word: a slow board reads a long prompt

BoardOption = Annotated[
    str | None,
    typer.Option("--board", envvar=BOARD_VARIABLE, help="A board's name, or its address; by default this machine."),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar=KEY_VARIABLE, help="The board's key, where it wants one.")
]


class Refused(EdgeaiError):
    """A board said no, or could not be reached."""

    status = 502


@dataclass(frozen=True, slots=True)
class Board:
    """Where a server is, and the key to it."""

    url: str
    key: str | None = None

    @classmethod
    def named(cls, name: str | None, key: str | None) -> Board:
        """The board that a person calls `name`. Raises `NotFound` when no such board is on the network."""
        if not name:
            return cls(HERE, key)
        if "://" in name:
            return cls(name.rstrip("/"), key)
        if re.fullmatch(r"[\w-]+", name) and name != "localhost":
            return cls(_found(name), key)
        return cls(f"http://{name}" if re.search(r":\d+$", name) else f"http://{name}:{PORT}", key)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON at `path`. Raises `Refused`."""
        with self._answer("GET", path) as answer:
            document = json.load(answer)
        if not isinstance(document, dict):
            raise Refused(f"{self.url} is no edgeai server", "look at --board")
        return document

    def chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> Iterator[str]:
        """The answer to `messages`, piece by piece. Raises `Refused`, `Overloaded`."""
        given = {name: value for name, value in options.items() if value is not None}
        body = json.dumps({"messages": list(messages), "stream": True, **given}).encode()
        with self._answer("POST", "/v1/chat/completions", body) as answer:
            for event in _events(answer):
                if "error" in event:
                    raise Refused(str(event["error"].get("message")))
                for choice in event["choices"]:
                    yield choice["delta"].get("content") or ""

    @contextmanager
    def _answer(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        with closing(self._connection()) as connection:
            try:
                connection.request(method, path, body, headers | {"content-type": "application/json"})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                hint = "is it on? `edgeai discover` lists what is; `edgeai serve` starts a server here"
                raise Refused(f"{self.url} does not answer: {error or type(error).__name__}", hint) from error
            with answer:
                if answer.status != 200:
                    raise _refusal(answer)
                yield answer

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=os.environ.get(CERTIFICATE_VARIABLE))
            return http.client.HTTPSConnection(parts.netloc, timeout=PATIENCE, context=context)
        return http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)


def _found(name: str) -> str:
    """The address of the board that announces itself as `name`."""
    from edgeai.discovery.browse import discover

    boards = {board.name: board.url for board in discover(LOOK_SECONDS)}
    if name not in boards:
        known = f"there is {', '.join(sorted(boards))}" if boards else "none has answered"
        raise NotFound(f"no board {name!r} is on this network", f"{known}; an address works too")
    return boards[name]


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Server-sent events with JSON in them."""
    for line in answer:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line[6:])


def _refusal(answer: http.client.HTTPResponse) -> EdgeaiError:
    """What a board said no with."""
    try:
        message = str(json.load(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the board answers with HTTP {answer.status}"
    if answer.status == 401:
        return Refused(message, f"give its key with --key or {KEY_VARIABLE}")
    if answer.status in (429, 503):
        return Overloaded(message, retry_after=int(answer.getheader("retry-after") or 1))
    return Refused(message)
