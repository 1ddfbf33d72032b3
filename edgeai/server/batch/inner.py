"""Requests that the server makes to itself, through all of its layers, as if a client had sent them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message


async def post(app: ASGIApp, path: str, body: dict[str, Any], client: str) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers of the answer to `body` at `path`, asked for `client`; cancelling ends the request."""
    content = json.dumps(body).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
        "client": None,
        "server": None,
        "state": {"client": client},  # where no request from outside can put anything: the guard knows it by that
    }
    exchange = _Exchange(content)
    await app(scope, exchange.receive, exchange.send)
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # the outermost layer answers instead of being cancelled
        raise asyncio.CancelledError
    return exchange.status, json.loads(bytes(exchange.body)), exchange.headers


class _Exchange:
    """The body that is sent, once, and the answer."""

    def __init__(self, content: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self._content: bytes | None = content

    async def receive(self) -> Message:
        """The body; after that the client stays, saying nothing."""
        if self._content is None:
            await asyncio.Event().wait()
        content, self._content = self._content, None
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take in the next part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
