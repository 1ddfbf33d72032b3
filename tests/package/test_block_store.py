"""KV blocks on disk: whole or not there, bounded, and never believed when they are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeai.package import durable
from edgeai.package.block_store import DAY, LEDGER_NAME, PAUSE_SECONDS, UNUSED_SECONDS, BlockStore, remove_unused
from edgeai.package.kv_blocks import HEADER, BlockFormat
from tests.fixtures.patience import PATIENCE, eventually
from tests.package.stored_blocks import FORM, PLENTY, SHAPE, SIZE, Clock, block, fill, held, key


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[list[BlockStore]]:
    stores: list[BlockStore] = []
    yield stores
    for store in stores:
        store.close()


def open_store(tmp_path: Path, opened: list[BlockStore], clock: Clock, **changes: int) -> BlockStore:
    settings = {"disk_bytes": PLENTY, "daily_bytes": PLENTY, "queued_bytes": PLENTY} | changes
    opened.append(BlockStore(tmp_path / "kv", FORM, clock=clock, **settings))
    return opened[-1]


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kv").glob("*.kv"))


def test_what_was_offered_is_there_after_a_restart(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    fill(open_store(tmp_path, opened, clock), 1, 2, 3)
    again = open_store(tmp_path, opened, clock)
    assert held(again) == [1, 2, 3]
    assert again.stats().loaded == 3
    assert again.stats().bytes == 3 * SIZE == sum(path.stat().st_size for path in files(tmp_path))
    assert not again.offer(key(1), block(1))  # it is here
    assert again.load(key(9)) is None


def test_a_run_ends_at_the_first_gap(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    store = open_store(tmp_path, opened, clock)
    fill(store, 1, 2, 4)
    assert store.run(map(key, (1, 2, 3, 4))) == [key(1), key(2)]


def test_the_longest_unused_leaves_first_and_a_tail_before_its_head(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    store = open_store(tmp_path, opened, clock, disk_bytes=4 * SIZE)
    fill(store, 1, 2, 3, 4)
    store.touch([key(1), key(2), key(3)])  # 4 is now the longest unused, then 3, the tail
    fill(store, 5)
    assert held(store) == [1, 2, 3, 5]
    fill(store, 6)
    assert held(store) == [1, 2, 5, 6]
    assert len(files(tmp_path)) == 4


def test_after_a_restart_tails_leave_before_heads(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    fill(open_store(tmp_path, opened, clock), 1, 2, 3)
    for age, number in ((3.0, 1), (2.0, 2), (1.0, 3)):
        path = tmp_path / "kv" / f"{key(number).hex()}.kv"
        os.utime(path, (6000.0 - age, 6000.0 - age))
    store = open_store(tmp_path, opened, clock, disk_bytes=3 * SIZE)
    fill(store, 4)
    assert held(store) == [1, 2, 4]


def test_after_a_restart_what_was_loaded_counts_as_used_however_old_it_is(
    tmp_path: Path, opened: list[BlockStore]
) -> None:
    now = Clock()
    now.now = time.time()
    fill(open_store(tmp_path, opened, now), 1, 2, 3)
    for days, number in ((10, 1), (5, 2), (0, 3)):
        os.utime(tmp_path / "kv" / f"{key(number).hex()}.kv", (now.now - days * DAY,) * 2)
    written = [path.stat().st_mtime_ns for path in files(tmp_path) if path.stem == key(3).hex()]
    assert held(open_store(tmp_path, opened, now)) == [1, 2, 3]
    assert [path.stat().st_mtime_ns for path in files(tmp_path) if path.stem == key(3).hex()] == written  # once a day
    os.utime(tmp_path / "kv" / f"{key(2).hex()}.kv", (now.now - 5 * DAY,) * 2)  # as if it had not been
    store = open_store(tmp_path, opened, now, disk_bytes=3 * SIZE)
    fill(store, 4)
    assert held(store) == [1, 3, 4]


def test_a_lower_bound_holds_from_the_start(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    fill(open_store(tmp_path, opened, clock), 1, 2, 3, 4)
    store = open_store(tmp_path, opened, clock, disk_bytes=2 * SIZE)
    assert eventually(lambda: len(files(tmp_path)) == 2)
    assert store.stats().blocks == 2


def test_no_more_is_written_in_a_day_than_the_budget(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    store = open_store(tmp_path, opened, clock, daily_bytes=2 * SIZE + SIZE // 2)
    fill(store, 1, 2)
    assert not store.offer(key(3), block(3))
    assert store.stats().written_today_bytes == 2 * SIZE
    again = open_store(tmp_path, opened, clock, daily_bytes=2 * SIZE + SIZE // 2)
    assert not again.offer(key(3), block(3))  # the budget is remembered
    clock.now -= 5 * DAY
    assert not again.offer(key(3), block(3))  # a clock that is set back does not start the day again
    clock.now += 6 * DAY
    fill(again, 3)
    assert held(again) == [1, 2, 3]
    assert again.stats().written_today_bytes == SIZE


def test_half_of_the_budget_is_kept_for_blocks_that_were_used_again(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    store = open_store(tmp_path, opened, clock, daily_bytes=4 * SIZE)
    for number in (1, 2):
        assert store.offer(key(number), block(number), reused=False)
        store.flush()
    assert not store.offer(key(3), block(3), reused=False)
    fill(store, 3, 4)
    assert not store.offer(key(5), block(5))


def test_a_ledger_from_the_future_does_not_stop_writing_for_ever(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    clock.now += 5000 * DAY
    fill(open_store(tmp_path, opened, clock, daily_bytes=SIZE), 1)
    clock.now -= 5000 * DAY  # the clock was wrong, and is right now
    store = open_store(tmp_path, opened, clock, daily_bytes=SIZE)
    assert not store.offer(key(2), block(2))
    clock.now += DAY
    fill(store, 2)


def test_a_clock_that_is_corrected_while_the_store_is_open_does_not_stop_writing_for_ever(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    clock.now += 5000 * DAY
    store = open_store(tmp_path, opened, clock, daily_bytes=2 * SIZE)
    fill(store, 1)
    clock.now -= 5000 * DAY
    fill(store, 2)  # the rest of the budget
    assert not store.offer(key(3), block(3))
    clock.now += DAY
    fill(store, 3)
    assert held(store) == [1, 2, 3]


def test_a_spent_budget_does_not_outlast_a_clock_that_is_set_back(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    clock.now += 5000 * DAY
    store = open_store(tmp_path, opened, clock, daily_bytes=SIZE)
    fill(store, 1)
    clock.now -= 5000 * DAY
    assert not store.offer(key(2), block(2))
    clock.now += DAY
    fill(store, 2)
    assert held(store) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"day": "x", "bytes": 1}', b"\xff\xfe"])
def test_a_damaged_ledger_starts_afresh(tmp_path: Path, opened: list[BlockStore], clock: Clock, content: bytes) -> None:
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / LEDGER_NAME).write_bytes(content)
    fill(open_store(tmp_path, opened, clock), 1)
    assert json.loads((tmp_path / "kv" / LEDGER_NAME).read_bytes())["bytes"] == SIZE


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", range(0, SIZE, 5))
def test_one_wrong_bit_is_noticed(tmp_path: Path, opened: list[BlockStore], clock: Clock, at: int) -> None:
    fill(open_store(tmp_path, opened, clock), 1, 2)
    damage(tmp_path / "kv" / f"{key(1).hex()}.kv", at)
    store = open_store(tmp_path, opened, clock)
    assert held(store) == [2]
    assert store.stats().damaged == 1
    assert [path.stem for path in files(tmp_path)] == [key(2).hex()]
    fill(store, 1)  # and can be computed and stored again
    assert held(store) == [1, 2]


def test_files_of_a_wrong_size_or_name_are_not_blocks(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    fill(open_store(tmp_path, opened, clock), 1)
    folder = tmp_path / "kv"
    (folder / f"{key(2).hex()}.kv").write_bytes(b"short")
    (folder / f"{key(3).hex()}.kv").write_bytes((folder / f"{key(1).hex()}.kv").read_bytes() + b"x")
    (folder / "not hexadecimal.kv").write_bytes(b"x" * SIZE)
    store = open_store(tmp_path, opened, clock)
    assert held(store) == [1]
    assert store.stats().blocks == 1


def test_blocks_are_read_into_the_same_memory_one_after_the_other(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    """One that was cut, or grew, while the store is open must not be taken for the one before, or for a part of it."""
    store = open_store(tmp_path, opened, clock)
    fill(store, 1, 2, 3)
    buffer = store.buffer()
    for number in (1, 2, 1):
        loaded = store.load(key(number), buffer)
        np.testing.assert_array_equal(loaded, block(number))
        assert np.shares_memory(loaded, np.frombuffer(buffer, np.uint8))
    whole = store._path(key(1)).read_bytes()
    for number, content in ((1, whole[:-1]), (2, whole[: HEADER.size]), (3, store._path(key(3)).read_bytes() + b"x")):
        store._path(key(number)).write_bytes(content)
        assert store.load(key(number), buffer) is None
    assert store.stats().damaged == 3


def test_a_file_that_vanishes_is_a_miss(tmp_path: Path, opened: list[BlockStore], clock: Clock) -> None:
    store = open_store(tmp_path, opened, clock)
    fill(store, 1)
    files(tmp_path)[0].unlink()
    assert store.load(key(1)) is None
    assert key(1) not in store


@pytest.mark.parametrize("failure", [28, 5, 30])  # no space, input/output error, read-only file system
def test_a_full_or_failing_disk_stops_writing_for_a_while(
    tmp_path: Path, opened: list[BlockStore], clock: Clock, failure: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path, opened, clock)
    fill(store, 1)

    def fail(*_: object) -> None:
        raise OSError(failure, os.strerror(failure))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert store.offer(key(2), block(2))
        store.flush()
    assert held(store) == [1]
    assert not store.offer(key(2), block(2))
    clock.now += PAUSE_SECONDS + 1
    fill(store, 2)
    assert held(store) == [1, 2]
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("of the test")])
def test_whatever_fails_costs_one_block_and_a_while(
    tmp_path: Path,
    opened: list[BlockStore],
    clock: Clock,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_store(tmp_path, opened, clock)

    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(BlockFormat, "pack", fail)
        assert store.offer(key(1), block(1))
        store.flush()
    assert type(failure).__name__ in caplog.text  # where it came from
    assert not store.offer(key(1), block(1))
    clock.now += PAUSE_SECONDS + 1
    fill(store, 1)
    assert held(store) == [1]


def test_the_longest_unused_is_looked_for_while_nobody_changes_the_order(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    store = open_store(tmp_path, opened, clock, disk_bytes=2 * SIZE)

    class Watched(OrderedDict[bytes, None]):
        def __iter__(self) -> Iterator[bytes]:
            assert store._lock.locked()  # another thread may `touch` at any moment
            return super().__iter__()

    store._blocks = Watched()
    fill(store, 1, 2, 3)
    assert held(store) == [2, 3]


def test_a_pause_does_not_outlast_a_clock_that_is_set_back(
    tmp_path: Path, opened: list[BlockStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now += 5000 * DAY
    store = open_store(tmp_path, opened, clock)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_file", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "of the test")))
        assert store.offer(key(1), block(1))
        store.flush()
    assert not store.offer(key(1), block(1))
    clock.now -= 5000 * DAY
    fill(store, 1)


def test_a_folder_that_cannot_be_made_costs_only_the_store(
    tmp_path: Path, opened: list[BlockStore], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kv").write_text("in the way")
    store = open_store(tmp_path, opened, clock)
    assert not store.offer(key(1), block(1))
    assert held(store) == []
    assert caplog.text.count("stored KV blocks failed") == 1
    (tmp_path / "kv").unlink()
    clock.now += PAUSE_SECONDS + 1
    fill(store, 1)
    assert held(store) == [1]


def test_a_folder_that_can_only_be_read_is_read(
    tmp_path: Path, opened: list[BlockStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(open_store(tmp_path, opened, clock), 1, 2)
    (tmp_path / "kv" / f"{key(3).hex()}.kv").write_bytes(b"of a wrong size")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    for name in ("unlink", "rename", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    store = open_store(tmp_path, opened, clock)
    assert held(store) == [1, 2]
    assert not store.offer(key(3), block(3))


def test_blocks_that_lie_under_each_other_s_names_are_not_taken(
    tmp_path: Path, opened: list[BlockStore], clock: Clock
) -> None:
    """Each is whole, and its digest right; but it was computed for other tokens."""
    fill(open_store(tmp_path, opened, clock), 1, 2, 3)
    one, two = (tmp_path / "kv" / f"{key(number).hex()}.kv" for number in (1, 2))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    store = open_store(tmp_path, opened, clock)
    assert held(store) == [3]
    assert store.stats().damaged == 2


def test_blocks_of_another_owner_or_type_are_not_taken(tmp_path: Path, clock: Clock) -> None:
    def reopened(form: BlockFormat) -> BlockStore:
        return BlockStore(tmp_path / "kv", form, disk_bytes=PLENTY, daily_bytes=PLENTY, clock=clock)

    with contextlib.closing(reopened(BlockFormat(SHAPE, owner="mine"))) as store:
        fill(store, 1)
    for other in (BlockFormat(SHAPE, owner="yours"), BlockFormat(SHAPE, np.int32, owner="mine")):
        data = (tmp_path / "kv" / f"{key(1).hex()}.kv").read_bytes()
        assert other.unpack(key(1), data) is None
    with contextlib.closing(reopened(BlockFormat(SHAPE, owner="mine"))) as store:
        assert held(store) == [1]


def test_offers_never_wait_and_are_dropped_when_the_writer_is_behind(
    tmp_path: Path, opened: list[BlockStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, all_offered = durable.write_file, threading.Event()

    def slow(*arguments: object, **options: object) -> int:
        assert all_offered.wait(PATIENCE), "an offer waits"
        return real(*arguments, **options)

    monkeypatch.setattr(durable, "write_file", slow)
    store = open_store(tmp_path, opened, clock, queued_bytes=2 * (SIZE - HEADER.size))
    taken = [store.offer(key(number), block(number)) for number in range(20)]
    all_offered.set()
    assert 2 <= sum(taken) <= 4
    store.flush()
    assert held(store) == [number for number in range(20) if taken[number]]


def aged(folder: Path) -> Path:
    """A folder of blocks that were written long ago."""
    with contextlib.closing(BlockStore(folder, FORM, disk_bytes=PLENTY, daily_bytes=PLENTY)) as store:
        fill(store, 1)
    long_ago = time.time() - UNUSED_SECONDS - DAY
    os.utime(folder / LEDGER_NAME, (long_ago, long_ago))
    return folder


def test_folders_that_nobody_used_for_a_month_are_removed(tmp_path: Path) -> None:
    unused, own, foreign = aged(tmp_path / "unused"), aged(tmp_path / "own"), tmp_path / "foreign"
    foreign.mkdir()
    remove_unused(tmp_path, keep="own")
    assert not unused.exists()
    assert own.exists()
    assert foreign.exists()


def test_a_folder_that_was_only_read_from_is_in_use(tmp_path: Path) -> None:
    folder = aged(tmp_path / "read")
    with contextlib.closing(BlockStore(folder, FORM, disk_bytes=PLENTY, daily_bytes=PLENTY)) as store:
        assert held(store) == [1]
    remove_unused(tmp_path, keep="other")
    assert folder.exists()


def test_a_folder_that_is_open_stays_however_long_that_lasts(tmp_path: Path) -> None:
    folder = aged(tmp_path / "open")
    with contextlib.closing(BlockStore(folder, FORM, disk_bytes=PLENTY, daily_bytes=PLENTY)) as store:
        long_ago = time.time() - UNUSED_SECONDS - DAY
        os.utime(folder / LEDGER_NAME, (long_ago, long_ago))
        remove_unused(tmp_path, keep="other")
        assert held(store) == [1]
    remove_unused(tmp_path, keep="other")
    assert not folder.exists()
