"""What the engine asks of a model: logits for tokens, over rows of a KV arena.

There are two kinds. `ModelRunner` runs the graphs that edgeai writes itself, whose fused attention works in the arena's
own memory. `ExportedRunner` runs graphs that optimum exported, which take the whole cache and give it back grown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeai.engine.adapters import Adapter
from edgeai.engine.config import ModelShape
from edgeai.engine.kv_cache import KVArena

Logits = NDArray[np.float32]


class Runner(Protocol):
    """A loaded graph and its KV arena. Logits are valid until the next call."""

    shape: ModelShape
    arena: KVArena

    def shrink(self) -> None:
        """Give the buffers of past runs back to the system, at the end of the next run."""

    def interrupt(self) -> None:
        """End the run that is under way, if there is one; it raises `Interrupted`. Called by another thread."""

    def recover(self) -> None:
        """Memory is plentiful again, after `shrink`."""

    def complete(self) -> bool:
        """Load now what is otherwise loaded later; whether all is there. For checks and measurements."""

    def close(self) -> None:
        """No run follows any more."""

    def enable_adapters(self) -> None:
        """Get ready for runs with adapters. Raises `InvalidInput` where the model takes none."""

    def decode(self, tokens: Sequence[int], lengths: Sequence[int], adapters: Sequence[Adapter | None] = ()) -> Logits:
        """One new token for each of the slots 0, 1, ...; `lengths` are the tokens each already has in the cache.

        Returns logits [rows, vocab_size].
        """

    def verify(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], adapters: Sequence[Adapter | None] = ()
    ) -> list[Logits]:
        """Some new tokens for each of the slots 0, 1, ...: the newest one and a draft of what follows.

        Returns the logits [len(row), vocab_size] of every position, row by row.
        """

    def prefill(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> Logits:
        """A chunk of tokens at positions from `start` on, in one slot. Returns the logits [vocab_size] of its last."""

    def fill(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> None:
        """Like `prefill`, for a chunk in the middle of a prompt: nobody wants its logits."""

    def score(self, slot: int, tokens: Sequence[int], start: int, adapter: Adapter | None = None) -> Logits:
        """Like `prefill`, with the logits [tokens, vocab_size] of every position; for evaluation."""
