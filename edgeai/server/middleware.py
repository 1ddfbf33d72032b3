"""Around every request: limits before it, counts and one log line after it, an honest answer when the server stops."""

from __future__ import annotations

import asyncio
import logging
import time
from email.utils import formatdate

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeai.errors import Overloaded
from edgeai.server.body_budget import BodyBudget
from edgeai.server.errors import error_response, http_error_response
from edgeai.server.metrics import Metrics

log = logging.getLogger("edgeai.server")


class Gate:
    """The outermost layer. It looks at heads and sizes only, never at what a prompt says."""

    def __init__(self, app: ASGIApp, metrics: Metrics, bodies: BodyBudget) -> None:
        self._app = app
        self._metrics = metrics
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, receive, send, self._bodies)
        try:
            await self._answer(exchange)
        finally:
            exchange.close()
            self._note(scope, exchange, time.perf_counter() - started)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            exchange.check_head()
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except HTTPException as refused:
            await exchange.reply(http_error_response(refused, exchange.scope["method"], exchange.scope["path"]))
        except asyncio.CancelledError:
            # The server stops and the grace period is over: the task ends here either way.
            if not exchange.status:
                await exchange.reply(error_response(Overloaded("the server is shutting down", "try again later")))
        except Exception as error:
            if exchange.status:
                raise
            await exchange.reply(error_response(error))

    def _note(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        state = scope["state"]
        status = state.get("status", exchange.status)
        # Addresses that lead nowhere share one label: anybody can make up any number of them.
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.request(route, status, seconds)
        usage = state.get("usage")
        tokens = f" {usage.prompt}+{usage.completion} tokens" if usage else ""
        log.info("%s %s %d %.3f s%s", scope["method"], route, status, seconds, tokens)


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: BodyBudget) -> None:
        self.scope = scope
        self.status = 0  # until the answer has begun
        self._receive = receive
        self._send = send
        self._bodies = bodies
        self._received = 0
        scope.setdefault("state", {})

    def check_head(self) -> None:
        """Refuse bodies that are too large or not JSON.

        The content type matters for safety: a web page elsewhere may send forms and plain text to a server on this
        network without asking, but not JSON.
        """
        headers = Headers(scope=self.scope)
        length = headers.get("content-length", "0")
        if length.isdecimal():
            self._bodies.check(int(length))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.scope["method"] == "POST" and kind != "application/json":
            detail = f"the content type is {kind or 'missing'}, but must be application/json"
            raise HTTPException(415, detail)

    async def receive(self) -> Message:
        """Pass on the next part of the body, counting."""
        message = await self._receive()
        size = len(message.get("body", b""))
        self._bodies.check(size, self._received)
        self._bodies.take(size)
        self._received += size
        return message

    def close(self) -> None:
        """The request is over, and what it brought is no longer needed."""
        self._bodies.give_back(self._received)

    async def send(self, message: Message) -> None:
        """Pass on the next part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-content-type-options"] = "nosniff"
            headers["date"] = formatdate(usegmt=True)
        await self._send(message)

    async def reply(self, response: Response) -> None:
        """Answer in place of the application."""
        await response(self.scope, self.receive, self.send)
