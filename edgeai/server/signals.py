"""How a server ends when it is told to: with everything closed, and yet of the signal that it was sent."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import asyncio


class Stoppable(Protocol):
    """What `uvicorn.Server` has."""

    should_exit: bool


class StopSignals:
    """SIGINT and SIGTERM, while the block runs. They raise KeyboardInterrupt until `stop` is called, for loading is to
    end at once; from then on they ask the server to stop.

    An exception alone is no way to stop: Python drops what a handler raises while a finalizer or the callback of a weak
    reference runs, and importing has such callbacks.

    uvicorn raises the signal that stopped it once more when it is done. The default action of SIGTERM would end the
    process right there: to the next server this one would have died, and deserve a check. Here it is raised when all
    that is open has been closed. In another thread than the main one, which alone is told of signals, nothing is done.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None  # the last one
        self._server: Stoppable | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def stop(self, server: Stoppable) -> None:
        """Signals stop `server` from now on. Raises KeyboardInterrupt if there was one whose exception was lost."""
        self._server = server
        if self.came is not None:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handled = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.came == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.came = signal.Signals(number)
        if self._server is None:
            raise KeyboardInterrupt
        self._server.should_exit = True


@contextmanager
def on_hangup(call: Callable[[], None], server: Stoppable) -> Iterator[None]:
    """Have SIGHUP call something, as servers do to read their configuration again, instead of ending the process.

    A terminal sends it as well when it is closed. Then the server stops, as everything else in that terminal does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    had_terminal = _has_terminal()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if had_terminal and not _has_terminal():
            server.should_exit = True
        else:
            call()

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every signal wake the loop, so that its handler runs at once.

    Python only notes a signal where it comes, and runs the handler in the main thread's next instruction. If it comes
    to another thread, or to the main one in the moment before it falls asleep in the loop, there is none until
    something else wakes it, which may be never in a server that sleeps while it has nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        loop.add_reader(reading, reading.recv, 4096)
        try:
            yield
        finally:
            loop.remove_reader(reading)
            signal.set_wakeup_fd(before)


def _has_terminal() -> bool:
    """Whether the process belongs to a terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
