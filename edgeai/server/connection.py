"""A connection with deadlines: for a head that does not end, an answer that is not read, a body that nobody wants.

uvicorn's own protocol has none of them: a connection that has sent half a head, or that reads nothing, would stay for
ever. What a body may take is counted where it is read, in `middleware`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeai.config import ServerSettings
from edgeai.server.browsers import SECURITY_HEADERS
from edgeai.server.errors import error_body

MAX_HEAD_BYTES = 32 << 10  # that h11 collects of a head that has not ended
UNWANTED_BYTES = 1 << 20  # of a body after its answer, read so that the client sees the answer
UNWANTED_SECONDS = 5.0
_NOT_ANSWERED = (h11.IDLE, h11.SEND_RESPONSE)


@dataclass(slots=True)
class Deadlines:
    """In seconds, as the settings of the moment have them."""

    head: float = 20.0
    stall: float = 60.0

    def follow(self, settings: ServerSettings) -> None:
        """Take over settings that were read again."""
        self.head, self.stall = settings.head_seconds, settings.stall_seconds


def protocol_class(deadlines: Deadlines) -> type[H11Protocol]:
    """The class of connections that keep to these deadlines, for uvicorn to make them from."""
    return type("BoundedProtocol", (Connection,), {"deadlines": deadlines})


class Connection(H11Protocol):
    """One client's connection."""

    deadlines = Deadlines()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._awaited: asyncio.TimerHandle | None = None  # the end of a head, or of a body that nobody wants
        self._unread: asyncio.TimerHandle | None = None
        self._unwanted = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come, and is to send a head."""
        super().connection_made(transport)
        self._await(self.deadlines.head, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self._await_nothing()
        self._read_again()

    def data_received(self, data: bytes) -> None:
        """Part of a request has come."""
        if self._unwanted or self._body_is_unwanted():
            self._unwanted += len(data)
            if self._unwanted > UNWANTED_BYTES:
                self.transport.close()
                return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is complete; its client may still be sending its body."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to. `admission` has the system watch the last bytes."""
        super().pause_writing()
        self._read_again()
        self._unread = self.loop.call_later(self.deadlines.stall, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._read_again()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; h11 says which status suits."""
        self._refuse(getattr(sys.exc_info()[1], "error_status_hint", 400), msg)

    def _watch(self) -> None:
        """Set the deadline for whatever is to come next."""
        state = self.conn.their_state
        if state is h11.IDLE and self.conn.trailing_data[0]:
            self._await(self.deadlines.head, self._head_is_late)
        elif self._body_is_unwanted():
            self._await(UNWANTED_SECONDS, self.transport.close)
        else:
            self._await_nothing()
            if (
                state is h11.IDLE and self.timeout_keep_alive_task is None
            ):  # put off while a body came that nobody wanted
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _body_is_unwanted(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _await(self, seconds: float, late: Any) -> None:
        if self._awaited is None:
            self._awaited = self.loop.call_later(seconds, late)

    def _await_nothing(self) -> None:
        self._unwanted = 0
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _head_is_late(self) -> None:
        self._awaited = None
        if self.conn.trailing_data[0]:
            self._refuse(408, "the head of the request did not end in time")
        else:  # who has said nothing need not be told anything
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer in the server's form, and hang up."""
        if self.transport.is_closing() or self.conn.our_state not in _NOT_ANSWERED:
            self.transport.close()
            return
        code = "request_timeout" if status == 408 else "invalid_http"
        body = json.dumps(error_body(status, message, code=code)).encode()
        headers = {**SECURITY_HEADERS, "content-type": "application/json", "content-length": str(len(body))}
        response = h11.Response(status_code=status, headers=[*headers.items(), ("connection", "close")])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
