"""How a server ends when it is told to: with everything closed, and yet of the signal that it was sent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_last() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, and end the process when all that is open has been closed.

    uvicorn raises the signal that stopped it once more when it is done. Its default action would end the process right
    there: to the next server this one would have died, and deserve a check.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return
    came = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Have SIGHUP call something, as servers do to read their configuration again, instead of ending the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda _number, _frame: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
