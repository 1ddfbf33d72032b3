"""Signals to stop: none is lost, whatever the server is doing when it comes."""

from __future__ import annotations

import signal
import sys
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from edgeai.server.signals import StopSignals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """SIGTERMs that reached the handler outside of the block, whose default would end the process."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    monkeypatch.setattr(sys, "unraisablehook", lambda _what: None)
    yield seen
    signal.signal(signal.SIGTERM, before)


def raise_where_exceptions_are_lost(number: signal.Signals) -> None:
    class Anything:
        pass

    thing = Anything()
    _reference = weakref.ref(thing, lambda _dead: signal.raise_signal(number))
    del thing


@BOTH
def test_loading_ends_at_once(number: signal.Signals, last: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals():
        signal.raise_signal(number)
    assert last == [number] * (number == signal.SIGTERM)


@BOTH
def test_a_signal_whose_exception_was_lost_ends_loading_all_the_same(number: signal.Signals, last: list[int]) -> None:
    server = SimpleNamespace(should_exit=False)
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        raise_where_exceptions_are_lost(number)
        signals.stop(server)
    assert last == [number] * (number == signal.SIGTERM)


@BOTH
def test_a_server_is_asked_to_stop_wherever_the_signal_comes(number: signal.Signals, last: list[int]) -> None:
    server = SimpleNamespace(should_exit=False)
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signals.stop(server)
        assert not server.should_exit
        raise_where_exceptions_are_lost(number)
        assert server.should_exit
        assert signals.came == number
        assert last == []  # it is not over yet
    assert last == [number] * (number == signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
