"""Blocks that were computed before a restart, copied back into the arena while other rows go on decoding.

The engine knows of the disk only this much: a `BlockStore` has blocks by the prefix cache's keys, and may forget any of
them at any moment.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from typing import Protocol

from edgeai.engine.prefix_cache import Block

LOADERS = 2  # checking a block's digest takes longer than putting it into its place
AHEAD = 4  # blocks that are loaded, or wait for their place: memory is for rows

log = logging.getLogger(__name__)


class BlockStore(Protocol):
    """Where blocks outlive the process. Called by the engine's thread and by those of a `Restore`."""

    def run(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys from the first on that are all there."""

    def buffer(self) -> bytearray:
        """Memory for `load`, to be used again and again."""

    def load(self, key: bytes, buffer: bytearray) -> Block | None:
        """A block that was checked, in the memory of `buffer`; None when it is gone or damaged."""

    def offer(self, key: bytes, block: Block, *, reused: bool) -> bool:
        """A block worth keeping, `reused` if it has saved work already; taken or not, without waiting."""


class Restore:
    """Copies the blocks of `keys`, in order, by threads of its own; `place(i, block)` puts the i-th where it belongs.

    Some are read and checked ahead, while one at a time is placed. It ends early at a block that cannot be loaded: what
    is missing from there on has to be computed.
    """

    def __init__(self, store: BlockStore, keys: Sequence[bytes], place: Callable[[int, Block], None]) -> None:
        self.blocks = 0  # placed so far, without a gap
        self._store, self._keys, self._place = store, keys, place
        self._cancelled = False
        self._buffers = [store.buffer() for _ in range(min(AHEAD, len(keys)))]
        self._thread = threading.Thread(target=self._run, name="edgeai-kv-restore", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it is done, but no longer than `seconds`."""
        self._thread.join(seconds)

    def cancel(self) -> None:
        """Stop after the blocks at hand; once this returns, nothing more is placed."""
        self._cancelled = True
        self._thread.join()

    def _run(self) -> None:
        pool = ThreadPoolExecutor(LOADERS, "edgeai-kv-loader")
        try:
            for index, loading in enumerate(self._loading(pool)):
                block = loading.result()
                if block is None or self._cancelled:
                    return
                self._place(index, block)
                self.blocks = index + 1
        except Exception:  # the request goes on without the rest
            log.exception("restoring stored KV blocks failed")
        finally:
            pool.shutdown(cancel_futures=True)

    def _loading(self, pool: ThreadPoolExecutor) -> Iterator[Future[Block | None]]:
        """Each block's, the next ones being under way already: as many as there are buffers, that of the block at hand
        among them.
        """
        jobs = zip(self._keys, cycle(self._buffers))
        ahead = deque(pool.submit(self._load, *job) for job in islice(jobs, AHEAD))
        while ahead:
            yield ahead.popleft()
            ahead.extend(pool.submit(self._load, *job) for job in islice(jobs, 1))

    def _load(self, key: bytes, buffer: bytearray) -> Block | None:
        return None if self._cancelled else self._store.load(key, buffer)
