"""What a request holds on to, such as the model that answers it, it holds until its answer is complete."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

_KEY = "held"

T = TypeVar("T")


class Held:
    """The layer that lets go of everything once the application has sent its answer, or failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as stack:
            scope.setdefault("state", {})[_KEY] = stack
            await self._app(scope, receive, send)


async def hold(request: HTTPConnection, what: AbstractAsyncContextManager[T]) -> T:
    """Enter a context that ends with the request. Raises as entering does."""
    stack: AsyncExitStack = request.scope["state"][_KEY]
    return await stack.enter_async_context(what)
