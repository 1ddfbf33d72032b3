"""Reads prompts with weights of their own, which are loaded behind the model's, where there is memory for them.

Nothing depends on them: as long as they are not there, or when they had to be given up, the plain graph reads prompts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeai.device.budget import reserve_bytes
from edgeai.device.file_pages import release_pages_of
from edgeai.device.profile import Memory, read_memory
from edgeai.engine.config import EngineSettings
from edgeai.engine.kv_cache import KVArena
from edgeai.errors import PackageError
from edgeai.onnx_session import OnnxSession

DELAY = 2.0  # seconds; the first answer needs the processor
LEAST_TOKENS = 16  # fewer are read as fast by the plain graph, which need not be waited for then
NEEDED = (3, 2)  # bytes to be free for bytes of weights: packed, and a run's buffers

log = logging.getLogger("edgeai.engine")


@dataclass(frozen=True, slots=True)
class PromptGraph:
    """A graph that fills the KV cache, and its weights file."""

    graph: Path
    weights: Path

    @property
    def needed_bytes(self) -> int:
        """What has to be free for it."""
        return self.weights.stat().st_size * NEEDED[0] // NEEDED[1]


def reads_prompts(settings: EngineSettings) -> bool:
    """Whether a package's graph for prompts is to be used."""
    return settings.prompt_weights and not settings.tight


class PromptReader:
    """A graph for prompts, from `DELAY` seconds after it was made, if memory allows.

    `promised` are bytes of the memory that are free now and will be taken by others.
    """

    def __init__(
        self,
        source: PromptGraph,
        load: Callable[[Path], OnnxSession],
        arena: KVArena,
        promised: Callable[[], int],
        memory: Callable[[], Memory] = read_memory,
    ) -> None:
        self._source, self._load_graph, self._arena = source, load, arena
        self._promised, self._memory = promised, memory
        self._session: OnnxSession | None = None
        self._given_up = self._closed = False
        self._lock = threading.Lock()  # of loading
        self._timer = self._start(DELAY)

    @property
    def loaded(self) -> bool:
        return self._session is not None

    def suits(self, tokens: int) -> bool:
        """Whether so many tokens are better read here."""
        return tokens >= LEAST_TOKENS and self.loaded

    def wait(self) -> bool:
        """Load it now, if that is not done; whether it is there then. For measurements."""
        self._timer.cancel()
        self._load()
        return self.loaded

    def give_up(self) -> None:
        """Memory is scarce."""
        self._timer.cancel()
        self._given_up, self._session = True, None

    def recover(self) -> None:
        """Memory is not scarce any more."""
        if self._given_up and not self._closed:
            self._given_up = False
            self._timer = self._start(DELAY)

    def close(self) -> None:
        """Nothing is loaded from now on, nor any more: a process must not end while onnxruntime is at work."""
        self._timer.cancel()
        self._given_up = self._closed = True
        with self._lock:
            pass

    def interrupt(self) -> None:
        """End the run that is under way, if there is one, with `Interrupted`; from another thread than it runs in."""
        session = self._session
        if session is not None:
            session.interrupt()

    def read(self, slot: int, tokens: Sequence[int], start: int) -> None:
        """Fill the cache of one slot for tokens at positions from `start` on."""
        session = self._session
        if session is None:
            raise RuntimeError("there is no graph for prompts; ask `suits` before")
        binding = session.binding()
        binding.input("input_ids", np.array([tokens], np.int64))
        binding.input("seqlens_k", np.array([start + len(tokens) - 1], np.int32))
        binding.input("query_seqlens", np.array([len(tokens)], np.int32))
        binding.input("total_sequence_length", np.array(start + len(tokens), np.int32))
        self._arena.bind(binding, slice(slot, slot + 1))
        session.run_bound(binding)

    def _start(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._load)
        timer.name, timer.daemon = "edgeai-prompt-weights", True
        timer.start()
        return timer

    def _load(self) -> None:
        with self._lock:
            if self._given_up or self.loaded:
                return
            size = self._source.needed_bytes
            memory = self._memory()
            left = memory.available - reserve_bytes(memory) - self._promised()
            if left < size:
                log.info("no int8 weights for prompts: they need %d MiB, %d are left", size >> 20, max(0, left) >> 20)
                return
            try:
                session = self._load_graph(self._source.graph)
                release_pages_of(self._source.weights)
            except PackageError as error:
                log.warning("prompts are read with the plain weights: %s", error)
                return
            except OSError as error:  # such as a container without /proc
                log.info("pages of prompt weights stay: %s", error)
            if not self._given_up:
                self._session = session
                log.info("prompts are read with int8 weights")
