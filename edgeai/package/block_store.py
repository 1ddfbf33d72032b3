"""KV blocks on disk, so that a prompt that was read once is not read again after a restart or a power cut.

A folder for each package and cache format, a file for each block, named by the block's key in the prefix cache::

    <folder>/<key in hexadecimal>.kv     in the format of `kv_blocks`

Files appear whole or not at all (`durable.write_file`), and nothing is believed before its digest has been checked:
what is damaged is removed and computed again. Writing is done in the background, within a budget a day, because SD
cards wear; when the disk is full or fails, the store stops writing for a while and says so once. Nothing here can lose
more than speed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import stat
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgeai.errors import OutOfDisk
from edgeai.package import durable
from edgeai.package.kv_blocks import Array, BlockFormat

log = logging.getLogger(__name__)

SUFFIX = ".kv"
LEDGER_NAME = "written.json"
DAY = 86400
PAUSE_SECONDS = 600.0  # without writing, after the disk failed or was full
UNUSED_SECONDS = 30 * DAY
SAME_USE_SECONDS = 600  # blocks written within such a time count as one use when the store is opened


@dataclass(frozen=True, slots=True)
class BlockStoreStats:
    """Counts since the store was opened, and what it holds."""

    blocks: int
    bytes: int
    loaded: int
    written: int
    damaged: int
    written_today_bytes: int


class BlockStore:
    """Blocks of one format. `offer` and `load` may be called by any thread; `offer` never waits.

    `disk_bytes` bounds the files, `daily_bytes` what is written within a day of the machine's clock, `queued_bytes`
    what waits in memory to be written.
    """

    def __init__(
        self,
        folder: Path,
        form: BlockFormat,
        *,
        disk_bytes: int,
        daily_bytes: int,
        queued_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._form = form
        self.block_bytes = form.block_bytes
        self._most = disk_bytes // self.block_bytes
        self._daily_bytes = daily_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[bytes, Array] | None] = queue.Queue(max(1, queued_bytes // form.payload_bytes))
        self._queued: set[bytes] = set()
        self._paused_until = 0.0
        self._loaded = self._written = self._damaged = 0
        self._release: Callable[[], object] = lambda: None
        self._prepare()
        self._blocks: OrderedDict[bytes, None] = OrderedDict.fromkeys(self._found())  # least recently used first
        self._day, self._spent = self._read_ledger()
        self._writer = threading.Thread(target=self._write_all, name="edgeai-kv-writer", daemon=True)
        self._writer.start()

    def _prepare(self) -> None:
        try:
            self._make_folder()
            self._release = weakref.finalize(self, os.close, durable.shared_folder(self.folder))
            durable.clean_stale(self.folder)
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.folder / LEDGER_NAME)  # for `remove_unused`
        except OSError as error:  # such as a disk that can only be read: what is on it may still be used
            self._pause("preparing the folder of", error)

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # keys and values tell what was asked

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def run(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys from the first on that are all here; they count as used now."""
        found = []
        for key in keys:
            if key not in self._blocks:
                break
            found.append(key)
        self.touch(found)
        return found

    def touch(self, chain: Sequence[bytes]) -> None:
        """Mark a chain as used, its head last: a tail without its head is worth nothing, and so leaves first."""
        with self._lock:
            for key in reversed(chain):
                if key in self._blocks:
                    self._blocks.move_to_end(key)

    def buffer(self) -> bytearray:
        """Memory for `load`."""
        return self._form.buffer()

    def load(self, key: bytes, buffer: bytearray | None = None) -> Array | None:
        """The block, checked; None when it is not here or not whole, in which case it is gone now.

        It lies in the `buffer`, if one is given, until that is used again.
        """
        try:
            data = _read(self._path(key), buffer or self.buffer())
        except FileNotFoundError:
            self._forget(key)
            return None
        except OSError as error:
            self._pause("reading", error)
            self._forget(key)
            return None
        block = self._form.unpack(key, data)
        if block is None:
            with self._lock:
                self._damaged += 1
            log.warning("a stored KV block was damaged and is removed: %s", self._path(key).name)
            self._remove(key)
            return None
        self._note_use(key)
        with self._lock:
            self._loaded += 1
        return block

    def offer(self, key: bytes, block: Array, *, reused: bool = True) -> bool:
        """Queue a block to be written, unless it is here already or there is no room for it now. Never waits.

        Blocks that have not been `reused` yet may take half of the day's budget; the rest is for those that have.
        """
        if key in self._blocks or key in self._queued or self._paused or not self._most:
            return False
        if not self._affordable(self._daily_bytes if reused else self._daily_bytes // 2):
            return False
        try:
            self._queued.add(key)
            self._queue.put_nowait((key, block))
        except queue.Full:
            self._queued.discard(key)
            return False
        return True

    def flush(self) -> None:
        """Wait until everything that was queued is written or given up."""
        self._queue.join()

    def close(self, *, timeout: float = 5.0) -> None:
        """Write what is queued, for at most `timeout` seconds, and stop."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
            self._writer.join(timeout)
        self._release()

    def stats(self) -> BlockStoreStats:
        held = len(self._blocks)
        with self._lock:
            self._turn_day()
            spent = self._spent
        return BlockStoreStats(held, held * self.block_bytes, self._loaded, self._written, self._damaged, spent)

    def _write_all(self) -> None:
        self._make_room(0)  # the bound may be lower than it was
        while True:
            item = self._queue.get()
            try:
                if item is None:
                    return
                self._write(*item)
            except (OSError, OutOfDisk) as error:
                self._pause("writing", error)
            except Exception as error:  # whatever it was: later ones may be written
                log.exception("a KV block could not be written")
                self._pause("writing", error)
            finally:
                if item is not None:
                    self._queued.discard(item[0])
                self._queue.task_done()

    def _write(self, key: bytes, block: Array) -> None:
        if self._paused or not self._affordable(self._daily_bytes):
            return
        self._make_folder()
        self._spend(self.block_bytes)
        self._make_room(1)
        durable.write_file(self._path(key), self._form.pack(key, block), size=self.block_bytes)
        with self._lock:
            self._blocks[key] = None
        self._written += 1

    def _make_room(self, blocks: int) -> None:
        """Have the longest unused leave, so that `blocks` more are within the bound."""
        with self._lock:
            oldest = list(islice(self._blocks, max(0, len(self._blocks) + blocks - self._most)))
        for key in oldest:
            self._remove(key)

    def _note_use(self, key: bytes) -> None:
        """Have the file tell the next start that it was used: once a day, for cards wear."""
        path = self._path(key)
        with contextlib.suppress(OSError):  # a disk that can only be read keeps the order it has
            if abs(self._clock() - path.stat().st_mtime) > DAY:
                os.utime(path)

    def _found(self) -> list[bytes]:
        """Keys of the files that are there, the longest unused first. Files of a wrong size are removed."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                key, status = bytes.fromhex(path.stem), path.stat()
            except (ValueError, OSError):
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_size != self.block_bytes:
                self._unlink(path)
                continue
            # A chain is written and read head first, within moments: its tail counts as used before its head.
            found.append((status.st_mtime // SAME_USE_SECONDS, -status.st_mtime_ns, key))
        return [key for _, _, key in sorted(found)]

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{SUFFIX}"

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._blocks.pop(key, None)

    def _remove(self, key: bytes) -> None:
        self._forget(key)
        self._unlink(self._path(key))

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._pause("removing", error)  # or the files could outgrow their bound

    def _pause(self, doing: str, error: Exception) -> None:
        if not self._paused:
            log.warning("%s stored KV blocks failed; none are written for %d s: %s", doing, PAUSE_SECONDS, error)
        self._paused_until = self._clock() + PAUSE_SECONDS

    @property
    def _paused(self) -> bool:
        """A clock that is set back ends the pause; else it might last for years."""
        return 0 < self._paused_until - self._clock() < 2 * PAUSE_SECONDS

    def _today(self) -> int:
        return int(self._clock() // DAY)

    def _affordable(self, budget: int) -> bool:
        """Whether one more block fits what may be written today."""
        with self._lock:
            self._turn_day()
            return self._spent + self.block_bytes <= budget

    def _spend(self, size: int) -> None:
        """Count before writing: a power cut may then cost budget, but never exceed it."""
        with self._lock:
            self._turn_day()
            self._spent += size
            ledger = {"day": self._day, "bytes": self._spent}
        durable.write_file(self.folder / LEDGER_NAME, json.dumps(ledger).encode())

    def _turn_day(self) -> None:
        """Begin a new day if it is one; with the lock held. A clock that is set back begins none, but the next day is
        one: else nothing might be written for years.
        """
        today = self._today()
        if today > self._day:
            self._spent = 0
        self._day = today

    def _read_ledger(self) -> tuple[int, int]:
        """Day and bytes written on it. A ledger from the future is one from before the clock was corrected."""
        try:
            document = json.loads((self.folder / LEDGER_NAME).read_bytes())
            day, spent = int(document["day"]), int(document["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._today(), 0
        return min(day, self._today()), max(0, spent)


def _read(path: Path, buffer: bytearray) -> memoryview:
    """What a file holds, as far as it goes into the buffer."""
    view, size = memoryview(buffer), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(view[size:]):
            size += count
    return view[:size]


def remove_unused(root: Path, *, keep: str) -> None:
    """Remove the folders of other packages and formats that nobody has open, and opened or wrote to for a month."""
    if not root.is_dir():
        return
    for folder in root.iterdir():
        ledger = folder / LEDGER_NAME
        if folder.name == keep or not ledger.is_file() or time.time() - ledger.stat().st_mtime <= UNUSED_SECONDS:
            continue
        with contextlib.suppress(OSError), durable.locked_folder(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed now is tried again at the next start
