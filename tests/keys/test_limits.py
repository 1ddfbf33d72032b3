"""Requests a minute and tokens a day."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from edgeai.errors import OutOfDisk
from edgeai.keys import limits
from edgeai.keys.limits import DAY, MAX_CLIENTS, RequestRates, TokenLedger


class Clock:
    """A clock that is told what time it is."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_minute_s_requests_may_come_at_once_and_then_steadily() -> None:
    clock = Clock(1000)
    rates = RequestRates(clock)
    assert [rates.take("a", 6).remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = rates.take("a", 6)
    assert (refused.remaining, refused.wait, refused.reset) == (0, 10.0, 60.0)
    assert rates.take("b", 6).wait == 0
    clock.now += 10.0
    assert rates.take("a", 6).wait == 0
    assert rates.take("a", 6).wait == 10.0
    clock.now += 1e6
    assert rates.take("a", 6).remaining == 5


def test_a_limit_that_changes_holds_at_once() -> None:
    rates = RequestRates(Clock(0))
    rates.take("a", 100)
    assert [rates.take("a", 2).wait > 0 for _ in range(3)] == [False, False, True]


def test_addresses_do_not_pile_up() -> None:
    rates = RequestRates(Clock(0))
    for number in range(MAX_CLIENTS + 100):
        rates.take(str(number), 1)
        rates.take("always", 10**6)
    assert len(rates._buckets) <= MAX_CLIENTS
    assert "always" in rates._buckets


def saved(ledger: TokenLedger) -> bool:
    """Whether there was something to write; it is written then."""
    write = ledger.save()
    if write is not None:
        write()
    return write is not None


def test_counts_survive_a_restart(tmp_path: Path) -> None:
    clock = Clock(10 * DAY + DAY - 100)
    ledger = TokenLedger(tmp_path, clock)
    ledger.add("a", 30, 100)
    assert saved(ledger)
    assert not saved(ledger)
    again = TokenLedger(tmp_path, clock)
    assert again.left("a", 100).remaining == 70
    again.add("a", 80, 100)
    refused = again.left("a", 100)
    assert (refused.remaining, refused.wait) == (0, 100)
    assert again.left("b", 100).wait == 0


@pytest.mark.parametrize("days", [1, -3000])
def test_another_day_begins_anew_even_if_a_clock_was_set_back(tmp_path: Path, days: int) -> None:
    clock = Clock(4000 * DAY)
    ledger = TokenLedger(tmp_path, clock)
    ledger.add("a", 100, 100)
    assert ledger.left("a", 100).remaining == 0
    clock.now += days * DAY
    assert ledger.left("a", 100).remaining == 100


def test_writes_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota that is used by single tokens is written twenty times, not a thousand times."""
    ledger = TokenLedger(tmp_path, Clock(0))
    assert sum(ledger.add("a", 1, 1000) and saved(ledger) for _ in range(1000)) == 20
    ledger.add("b", 1, 10**9)
    monkeypatch.setattr(limits, "SAVE_SECONDS", 0.0)
    assert ledger.add("b", 1, 10**9)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"day": 1, "tokens": [1]}', '{"day": "x", "tokens": {}}'])
def test_a_damaged_file_counts_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token-usage.json").write_text(text)
    ledger = TokenLedger(tmp_path, Clock(DAY))
    assert ledger.left("a", 10).remaining == 10
    assert "begin anew" in caplog.text


def test_a_full_disk_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutOfDisk("no room")

    caplog.set_level(logging.WARNING)
    ledger = TokenLedger(tmp_path, Clock(DAY))
    ledger.add("a", 5, 10)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "write_file", full)
        saved(ledger)
    assert "not saved: no room" in caplog.text
    ledger.add("a", 1, 10)
    assert saved(ledger)
    assert json.loads((tmp_path / "token-usage.json").read_text()) == {"day": 1, "tokens": {"a": 6}}
