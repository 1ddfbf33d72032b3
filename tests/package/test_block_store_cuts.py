"""Cuts of the power and of the process at any moment: what the disk then holds are whole blocks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeai.package import durable
from edgeai.package.block_store import BlockStore
from tests.package.stored_blocks import FORM, PLENTY, SIZE, Clock, block, held, key


class PowerCut(BaseException):
    """Nothing after this moment happens."""


class Disk:
    """Lets so many changes of the disk happen, and no more: writes (in halves), syncs, renames and removals."""

    def __init__(self, changes: int, patch: pytest.MonkeyPatch) -> None:
        self.left = changes
        fsync, rename, unlink = os.fsync, Path.rename, Path.unlink
        patch.setattr(os, "fsync", lambda descriptor: self.change(fsync, descriptor))
        patch.setattr(Path, "rename", lambda path, target: self.change(rename, path, target))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: self.change(unlink, path, missing_ok))
        patch.setattr(durable, "chunks_of", self.halves)

    def change(self, do: Callable[..., Any], *arguments: Any) -> Any:
        if not self.left:
            raise PowerCut  # for ever: what tidies up after an exception does not run either
        self.left -= 1
        return do(*arguments)

    def halves(self, data: durable.Data) -> Iterator[durable.Chunk]:
        for chunk in (data,) if isinstance(data, (bytes, memoryview)) else data:
            for half in (chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]):
                yield self.change(lambda part: part, half)


def test_a_power_cut_at_every_write_leaves_whole_blocks_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The disk stops after n changes, for every n until all is written; what it holds then is opened again."""
    survived: list[int] = []
    complete = False
    while not complete:
        folder = tmp_path / str(len(survived))
        with monkeypatch.context() as patch:
            patch.setattr(BlockStore, "_write_all", lambda self: None)  # the test itself is the writer
            store = BlockStore(folder, FORM, disk_bytes=3 * SIZE, daily_bytes=PLENTY, clock=clock)
            Disk(len(survived), patch)
            complete = write_until_the_cut(store)
        again = BlockStore(folder, FORM, disk_bytes=PLENTY, daily_bytes=PLENTY, clock=clock)
        survived.append(len(held(again)))  # each is compared with what was written
        assert again.stats().damaged == 0
        again.close()
    assert len(survived) > 60
    assert survived[0] == 0
    assert set(survived) == {0, 1, 2, 3}


def write_until_the_cut(store: BlockStore) -> bool:
    """Five blocks into room for three; whether nothing was cut."""
    try:
        for number in range(5):
            store._write(key(number), block(number))
    except PowerCut:
        return False
    return True


WRITE_FOR_EVER = """
import sys, itertools
from pathlib import Path
from tests.fixtures.patience import PATIENCE
from edgeai.package.block_store import BlockStore
from tests.package.stored_blocks import FORM, SIZE, PLENTY, key, block
store = BlockStore(Path(sys.argv[1]), FORM, disk_bytes=30 * SIZE, daily_bytes=10**9)
for number in itertools.cycle(range(40)):
    store.offer(key(number), block(number))
    store.flush()
    if number == 3:
        print("ready", flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_whole_blocks(tmp_path: Path) -> None:
    chance = random.Random(11)
    total = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, tmp_path / "kv"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        store = BlockStore(tmp_path / "kv", FORM, disk_bytes=PLENTY, daily_bytes=10**9)
        total += len(held(store))
        assert store.stats().damaged == 0
        store.close()
    assert total > 6
