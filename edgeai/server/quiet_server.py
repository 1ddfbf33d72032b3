"""uvicorn's server without its clock: at rest nothing in it wakes, which is what a board on a battery pays for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from edgeai.config import ServerSettings
from edgeai.server.admission import Admission, CountedListener
from edgeai.server.signals import waking


class QuietServer(uvicorn.Server):
    """Sleeps until a connection comes or `should_exit` is set, by a signal or by any thread.

    uvicorn looks ten times a second whether it should stop, and renews the date that it sends; here `Gate` dates the
    answers. Limits on the number of requests and notifications by a callback are uvicorn's tick as well: not here.
    """

    def __init__(self, config: uvicorn.Config, admission: Admission | None = None) -> None:
        """`admission` counts the connections."""
        self.admission = admission or Admission(ServerSettings())
        self._stopping = False
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_hangup: Callable[[], None] | None = None
        self._hung_up = False
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether the server is to stop, or has been stopped."""
        return self._stopping

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._stopping = value
        loop = self._loop
        if value and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on these listening sockets, which are the server's from now on."""
        counted = [each if isinstance(each, CountedListener) else CountedListener(each) for each in sockets or []]
        for listener in counted:
            listener.admission = self.admission
        return super().run([*counted])

    def hang_up(self) -> None:
        """Call `on_hangup` as soon as the server runs, from its loop; for handlers of signals."""
        self._hung_up = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._take_hangup)

    def _take_hangup(self) -> None:
        if self._hung_up and self.on_hangup is not None:
            self._hung_up = False
            self.on_hangup()

    async def main_loop(self) -> None:
        """Wait for the end."""
        self._loop = asyncio.get_running_loop()
        self._take_hangup()  # if it was told before the loop was known
        await self.on_tick(0)  # once, for the headers that every answer has
        with waking(self._loop):
            if not self._stopping:  # if it was set before the loop was known
                await self._woken.wait()
