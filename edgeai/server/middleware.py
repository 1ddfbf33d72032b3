"""Around every request: the guard and limits before it, counts and one log line after it, an honest answer always."""

from __future__ import annotations

import asyncio
import logging
import time
from email.utils import formatdate

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeai.device.power_governor import PowerGovernor
from edgeai.errors import Overloaded
from edgeai.server.auth import Client
from edgeai.server.body_budget import BodyBudget
from edgeai.server.browsers import SECURITY_HEADERS
from edgeai.server.errors import error_response, http_error_response
from edgeai.server.guard import Guard
from edgeai.server.logs import REQUEST_ID, new_id, request_id
from edgeai.server.metrics import Metrics
from edgeai.server.power import power_headers
from edgeai.server.request_limits import UPLOADS, check_brackets, check_head

log = logging.getLogger("edgeai.server")

SLOWEST_BODY = 1024  # bytes in a second that a body may take, beside the time that every body has


class Gate:
    """The outermost layer. It looks at heads and sizes only, never at what a prompt says."""

    def __init__(self, app: ASGIApp, metrics: Metrics, bodies: BodyBudget, guard: Guard, power: PowerGovernor) -> None:
        self._app = app
        self._metrics = metrics
        self._bodies = bodies
        self._guard = guard
        self._power = power

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, receive, send, self._bodies, self._guard.settings.body_seconds)
        exchange.told |= power_headers(self._power)
        token = request_id.set(exchange.told[REQUEST_ID])
        try:
            await self._answer(exchange)
        finally:
            exchange.close()
            self._note(scope, exchange, time.perf_counter() - started)
            self._count_tokens(scope, exchange.client)
            request_id.reset(token)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            exchange.client = self._guard.look(exchange.scope, exchange.headers, exchange.told)
            if exchange.client is None:
                await exchange.reply(Response(status_code=204))
                return
            if exchange.client.has_key:
                exchange.scope["state"]["client"] = exchange.client.id
            exchange.check_head()
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except HTTPException as refused:
            await exchange.reply(http_error_response(refused, exchange.scope["method"], exchange.scope["path"]))
        except asyncio.CancelledError:
            # The server stops and the grace period is over: the task ends here either way.
            if not exchange.status:
                stopping = Overloaded("the server is shutting down", "try again later")
                await exchange.reply(error_response(stopping, exchange.scope["path"]))
        except Exception as error:
            if exchange.status:
                raise
            await exchange.reply(error_response(error, exchange.scope["path"]))

    def _note(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        state = scope["state"]
        status = state.get("status", exchange.status)
        # Addresses that lead nowhere share one label: anybody can make up any number of them.
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.request(route, status, seconds)
        usage = state.get("usage")
        tokens = f" {usage.prompt}+{usage.completion} tokens" if usage else ""
        known = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 3)}
        if usage:
            known |= {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}
        log.info("%s %s %d %.3f s%s", scope["method"], route, status, seconds, tokens, extra=known)

    def _count_tokens(self, scope: Scope, client: Client | None) -> None:
        usage = scope["state"].get("usage")
        if client is None or usage is None:
            return
        if write := self._guard.authenticator.used(client, usage.prompt + usage.completion):
            asyncio.get_running_loop().run_in_executor(None, write)


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: BodyBudget, body_seconds: float) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.status = 0  # until the answer has begun
        self.client: Client | None = None
        self.told = {REQUEST_ID: new_id()}  # headers for the answer, whatever it is
        self._receive = receive
        self._send = send
        self._bodies = bodies
        self._received = 0
        self._brackets = 0
        self._more = True  # of the body is to come
        self._began = asyncio.get_running_loop().time()
        self._body_seconds = body_seconds
        scope.setdefault("state", {})

    def check_head(self) -> None:
        """Refuse bodies that are too large or not JSON, and heads without measure. Raises `HTTPException`."""
        check_head(self.scope, self.headers)
        length = self.headers.get("content-length", "0")
        if length.isdecimal():
            self._bodies.check(int(length))

    async def receive(self) -> Message:
        """Pass on the next part of the body, counting."""
        message = await (self._next_part() if self._more else self._receive())
        self._more = message.get("more_body", False)
        body = message.get("body", b"")
        size = len(body)
        self._bodies.check(size, self._received)
        if self.scope["path"] not in UPLOADS:
            self._brackets = check_brackets(body, self._brackets)
        self._bodies.take(size)
        self._received += size
        return message

    async def _next_part(self) -> Message:
        """The next part of the body, before its time is over."""
        seconds = self._body_seconds + self._received / SLOWEST_BODY
        try:
            async with asyncio.timeout_at(self._began + seconds):
                return await self._receive()
        except TimeoutError as late:
            raise HTTPException(408, "the body did not come in time", {"connection": "close"}) from late

    def close(self) -> None:
        """The request is over, and what it brought is no longer needed."""
        self._bodies.give_back(self._received)

    async def send(self, message: Message) -> None:
        """Pass on the next part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["date"] = formatdate(usegmt=True)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.update(self.told)
        await self._send(message)

    async def reply(self, response: Response) -> None:
        """Answer in place of the application."""
        await response(self.scope, self.receive, self.send)
