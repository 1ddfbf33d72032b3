"""KV blocks that came with a package, and the layer of stores that a model reads its blocks from.

A file of precomputed blocks is blocks in the format of `kv_blocks`, one after the other. It is only ever read: what is
damaged is left alone, said once, and computed again.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from edgeai.package.block_store import BlockStore
from edgeai.package.kv_blocks import HEADER, Array, BlockFormat
from edgeai.package.package import Package

log = logging.getLogger(__name__)


class WarmStore:
    """The blocks of one file, by key. It stays readable when the package is replaced meanwhile; any thread may read.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path, form: BlockFormat) -> None:
        self._form, self._name = form, path.name
        self._descriptor = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        self._offsets = dict(self._found())
        self.damaged = 0
        self._lock = threading.Lock()

    def __contains__(self, key: bytes) -> bool:
        return key in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def buffer(self) -> bytearray:
        """Memory for `load`."""
        return self._form.buffer()

    def load(self, key: bytes, buffer: bytearray | None = None) -> Array | None:
        """The block, checked; None when it is not here or not whole, in which case it does not count as here now.

        It lies in the `buffer`, if one is given, until that is used again.
        """
        offset = self._offsets.get(key)
        if offset is None:
            return None
        data = memoryview(buffer or self.buffer())[: self._form.block_bytes]
        try:
            block = self._form.unpack(key, data[: os.preadv(self._descriptor, [data], offset)])
        except OSError as error:
            self._damage(key, str(error))
            return None
        if block is None:
            self._damage(key, "it is not what was written")
        return block

    def close(self) -> None:
        self._offsets.clear()
        self._close()

    def _found(self) -> Iterable[tuple[bytes, int]]:
        """Key and offset of every block, as its header says."""
        size = os.fstat(self._descriptor).st_size
        for offset in range(0, size - self._form.block_bytes + 1, self._form.block_bytes):
            key = self._form.key_of(os.pread(self._descriptor, HEADER.size, offset))
            if key is not None:
                yield key, offset

    def _damage(self, key: bytes, problem: str) -> None:
        self._offsets.pop(key, None)
        with self._lock:
            self.damaged += 1
        log.warning("a precomputed block in %s cannot be used and is computed instead: %s", self._name, problem)


class LayeredStore:
    """Blocks that came with the package, over those that are kept on disk; either may be missing.

    It is what the engine asks for blocks (`engine.restore.BlockStore`). What the package has is not written again.
    """

    def __init__(self, warm: WarmStore | None, disk: BlockStore | None) -> None:
        self.warm, self.disk = warm, disk
        self._layers: Sequence[WarmStore | BlockStore] = [layer for layer in (warm, disk) if layer is not None]

    def run(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys from the first on that are all here; they count as used now."""
        found = list(takewhile(lambda key: any(key in layer for layer in self._layers), keys))
        if self.disk is not None:
            self.disk.touch(found)
        return found

    def buffer(self) -> bytearray:
        """Memory for `load`, whichever layer has the block."""
        return self._layers[0].buffer()

    def load(self, key: bytes, buffer: bytearray | None = None) -> Array | None:
        """The block, checked, in the `buffer` if one is given; None when no layer has it whole."""
        for layer in self._layers:
            block = layer.load(key, buffer) if key in layer else None
            if block is not None:
                return block
        return None

    def offer(self, key: bytes, block: Array, *, reused: bool = True) -> bool:
        """Keep a block on disk if it is worth it; see `BlockStore.offer`."""
        if self.disk is None or (self.warm is not None and key in self.warm):
            return False
        return self.disk.offer(key, block, reused=reused)

    def flush(self) -> None:
        """Wait until everything that was queued is written or given up."""
        if self.disk is not None:
            self.disk.flush()

    def close(self) -> None:
        """Write what is queued, for some seconds, and stop."""
        for layer in self._layers:
            layer.close()


def open_warm(package: Package, form: BlockFormat, *, kv_type: str, block_tokens: int) -> WarmStore | None:
    """The blocks that came with a package, if it has any in this form. What is wrong with them is said, not raised."""
    here = (package.model_digest, kv_type, block_tokens)
    for blocks in package.manifest.warm:
        if (blocks.model_digest, blocks.kv_type, blocks.block_tokens) != here:
            continue
        path = package.path / blocks.file
        try:
            store = WarmStore(path, form)
        except OSError as error:
            log.warning("precomputed prompts cannot be read and are computed instead: %s", error)
            return None
        if len(store) * form.block_bytes != package.manifest.files[blocks.file].size:
            log.warning("%s is damaged: what cannot be used of its precomputed prompts is computed instead", path)
        return store
    if package.manifest.warm:
        log.info("%s has no precomputed prompts for a KV cache of %s in blocks of %d", package.name, *here[1:])
    return None
