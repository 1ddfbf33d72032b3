"""Answers that last: server-sent events, and work that ends when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgeai.errors import Overloaded
from edgeai.server.errors import CLIENT_LEFT, describe, ollama_error
from edgeai.server.generation import Generation, Usage

if TYPE_CHECKING:
    from edgeai.model import Chunk

KEEP_ALIVE_SECONDS = 10.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

Result = TypeVar("Result")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do `work`, but cancel it as soon as the client leaves. Raises `ClientDisconnect` then."""
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for started in (task, watcher):
            started.cancel()
        await asyncio.wait({task, watcher})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamedReply(Protocol):
    """How an endpoint writes a generation as JSON documents."""

    def events(self, choice: int, chunk: Chunk) -> Iterable[dict[str, Any]]:
        """The documents for one chunk of one choice."""
        ...

    def closing(self, usage: Usage) -> Iterable[dict[str, Any]]:
        """The documents after the last chunk."""
        ...


async def all_documents(generation: Generation, reply: StreamedReply) -> list[dict[str, Any]]:
    """What a stream would consist of. Raises what the generation raises."""
    documents: list[dict[str, Any]] = []
    async with generation:
        async for choice, chunk in generation:
            documents += reply.events(choice, chunk)
    return [*documents, *reply.closing(generation.usage)]


@dataclass(frozen=True, slots=True)
class Framing:
    """How documents become a stream: what is around each, what keeps a quiet connection alive, and the end."""

    media_type: str
    before: bytes
    after: bytes
    waiting: bytes | None  # None where nothing can be sent that is no document
    end: bytes
    error: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]  # documents for OpenAI's body of an error
    named: bool = False  # each document's type is the event's name

    def frame(self, document: dict[str, Any]) -> bytes:
        """A document as it is sent."""
        # ASCII only: some clients split lines at U+2028 and U+0085, which are line ends to them but not to the formats.
        name = f"event: {document['type']}\n".encode() if self.named else b""
        return name + self.before + json.dumps(document, separators=(",", ":")).encode() + self.after


EVENTS = Framing(
    "text/event-stream; charset=utf-8", b"data: ", b"\n\n", b": waiting\n\n", b"data: [DONE]\n\n", lambda body: [body]
)
LINES = Framing("application/x-ndjson", b"", b"\n", None, b"", lambda body: [ollama_error(body)])
TYPED_EVENTS = replace(EVENTS, end=b"", named=True)


class EventStream(Response):
    """Streams a generation as documents in one of the framings above.

    The status line waits for the first document, so that a request refused by the engine gets an honest status; when
    the first takes long, comments keep the connection alive. A failure after that is a document with an `error`.
    """

    def __init__(self, generation: Generation, reply: StreamedReply, framing: Framing = EVENTS) -> None:
        super().__init__(headers=_HEADERS, media_type=framing.media_type)
        self._framing = framing
        del self.headers["content-length"]
        self._generation = generation
        self._reply = reply
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. Raises what the generation raises as long as nothing has been sent."""
        try:
            await unless_disconnected(receive, self._send_all(send))
        except ClientDisconnect:
            if not self._started:
                raise
            scope["state"]["status"] = CLIENT_LEFT
        except (Exception, asyncio.CancelledError) as error:
            if not self._started:
                raise
            if isinstance(error, asyncio.CancelledError):
                error = Overloaded("the server is shutting down", "try again later")
            scope["state"]["status"], body = describe(error)
            await self._write(send, self._framed(self._framing.error(body)), last=True)

    async def _send_all(self, send: Send) -> None:
        async with self._generation:
            while (item := await self._next(send)) is not None:
                await self._write(send, self._framed(self._reply.events(*item)))
        closing = self._framed(self._reply.closing(self._generation.usage))
        await self._write(send, closing + self._framing.end, last=True)

    async def _next(self, send: Send) -> tuple[int, Chunk] | None:
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS) as limit:
                    return await anext(self._generation, None)
            except TimeoutError:
                if not limit.expired():
                    raise
            if self._framing.waiting is not None:
                await self._write(send, self._framing.waiting)

    def _framed(self, documents: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(map(self._framing.frame, documents))

    async def _write(self, send: Send, body: bytes, *, last: bool = False) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": not last})
