"""Hourly notes: bytes written to the card by day, the log's ring, the clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgeai.appliance.card_writes import CardWrites, read_card_writes, write_card_writes, written_since_start
from edgeai.appliance.hourly import LOG, LOG_BYTES, OLDER_LOG, append_log, keep_clock, restore_clock
from edgeai.appliance.serial import serial_suffix


def test_writes_are_counted_once_by_day_and_start() -> None:
    writes = CardWrites().with_reading(1000, "one", "2026-11-30")
    writes = writes.with_reading(1500, "one", "2026-11-30")
    writes = writes.with_reading(1600, "one", "2026-12-01")
    writes = writes.with_reading(50, "two", "2026-12-01")
    assert writes.days == {"2026-11-30": 1500, "2026-12-01": 150}


def test_only_so_many_days_are_kept() -> None:
    writes = CardWrites()
    for number in range(100):
        writes = writes.with_reading(number + 1, "one", f"2026-{number:05d}")
    assert len(writes.days) == 60
    assert max(writes.days) == "2026-00099"


def test_the_count_is_kept_and_a_damaged_one_starts_anew(tmp_path: Path) -> None:
    writes = CardWrites({"2026-11-30": 5}, "one", 5)
    write_card_writes(writes, tmp_path)
    assert read_card_writes(tmp_path) == writes
    for damaged in ("", "[]", '{"days": 1}'):
        (tmp_path / "card-writes.json").write_text(damaged)
        assert read_card_writes(tmp_path) == CardWrites()


def test_sectors_of_this_machine_are_read() -> None:
    assert written_since_start("5 0 40 1 7 0 56 2 0 3 4 0 0 0 0 0 0\n") == 56 * 512


def test_the_log_is_a_ring_of_two_files(tmp_path: Path) -> None:
    for number in range(9):
        append_log(tmp_path, f"{number}".encode() * (LOG_BYTES // 4))
    assert (tmp_path / LOG).read_bytes()[:1] == b"8"
    assert (tmp_path / OLDER_LOG).read_bytes()[-1:] == b"7"
    assert all(path.stat().st_size <= LOG_BYTES for path in tmp_path.iterdir())
    before = (tmp_path / LOG).stat()
    append_log(tmp_path, b"")
    assert (tmp_path / LOG).stat().st_ino == before.st_ino
    append_log(tmp_path, b"x" * 3 * LOG_BYTES)
    assert (tmp_path / LOG).stat().st_size == LOG_BYTES


def test_the_clock_only_goes_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, moment: moments.append(moment))
    restore_clock(500.0, tmp_path)
    keep_clock(tmp_path, 1000.4)
    restore_clock(2000.0, tmp_path)
    assert moments == []
    restore_clock(500.0, tmp_path)
    assert moments == [1000.0]
    for nonsense in ("inf", "nan", "-inf", "1e300", "99999999999", "soon"):
        (tmp_path / "clock").write_text(nonsense)
        restore_clock(500.0, tmp_path)
    assert moments == [1000.0]


def test_boards_are_told_apart(tmp_path: Path) -> None:
    serial, network = tmp_path / "serial", tmp_path / "net"
    assert serial_suffix(serial, network) is None
    (network / "eth0" / "device").mkdir(parents=True)
    (network / "eth0" / "address").write_text("b8:27:eb:12:Ab:cd\n")
    (network / "lo").mkdir()
    assert serial_suffix(serial, network) == "abcd"
    serial.write_bytes(b"10000000deadBEEF\0")
    assert serial_suffix(serial, network) == "beef"
