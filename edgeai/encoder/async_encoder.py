"""An encoder for servers: one thread owns the graph and works for all clients at once.

Work goes in rounds. A round takes a share of sequences from every waiting request, the same number of tokens from each,
and runs those of one length together, whoever sent them. So a short request that comes while a long one is computed
waits for one round, not for the end of the long one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeai.encoder.encoder import Encoder, finish
from edgeai.encoder.tokens import Tokens
from edgeai.errors import EdgeaiError, Overloaded
from edgeai.package.manifest import Kind
from edgeai.package.package import Package

__all__ = ["AsyncEncoder", "EncoderStats"]

Floats = NDArray[np.float32]

ROUND_TOKENS = 4096  # of all requests together: what a newcomer may have to wait for
MAX_WAITING = 64  # requests

log = logging.getLogger("edgeai.encoder")


@dataclass(frozen=True, slots=True)
class EncoderStats:
    """Counts since the start; `waiting` are requests that are not complete now."""

    requests: int = 0
    sequences: int = 0
    tokens: int = 0
    waiting: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its sequences, the results so far, and how many have been handed to a round."""

    sequences: Sequence[Tokens]
    results: Floats
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Floats]
    next: int = 0
    cancelled: bool = False

    def share(self, tokens: int) -> list[int]:
        """Positions of the next sequences, at least one, up to so many tokens."""
        taken: list[int] = []
        used = 0
        while self.next < len(self.sequences) and (not taken or used + len(self.sequences[self.next]) <= tokens):
            used += len(self.sequences[self.next])
            taken.append(self.next)
            self.next += 1
        return taken

    def settle(self, error: EdgeaiError | None = None) -> None:
        """Give the results, or an error, to the task that waits in its own event loop, unless it is gone."""
        with contextlib.suppress(RuntimeError):  # the loop was closed; nobody is listening any more
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: EdgeaiError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self.results)
        else:
            self.done.set_exception(error)


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    sequences: int = 0
    tokens: int = 0
    open: set[_Job] = field(default_factory=set)


class AsyncEncoder:
    """An `Encoder` that any number of tasks may ask."""

    def __init__(self, encoder: Encoder, *, max_waiting: int = MAX_WAITING) -> None:
        self.encoder = encoder
        self._max_waiting = max_waiting
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._counts = _Counts()
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._own, name="edgeai-encoder", daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, package: Package, *, threads: int | None = None, max_waiting: int = MAX_WAITING) -> AsyncEncoder:
        """Raises `PackageError` for a damaged package."""
        return cls(Encoder(package, threads=threads), max_waiting=max_waiting)

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def kind(self) -> Kind:
        return self.encoder.package.manifest.kind

    async def compute(self, sequences: Sequence[Tokens]) -> Floats:
        """Vectors or logits [sequences, dimension]. Cancelling the task drops what is not computed yet.

        Raises `Overloaded` when too many requests wait, or the server stops.
        """
        loop = asyncio.get_running_loop()
        results = np.zeros((len(sequences), self.encoder.info.dimension), np.float32)
        job = _Job(sequences, results, loop, loop.create_future())
        with self._lock:
            if self._closing:
                raise Overloaded("the encoder was shut down", "try again later")
            if len(self._counts.open) >= self._max_waiting:
                raise Overloaded(f"{len(self._counts.open)} requests wait for {self.name}", "try again later")
            self._counts.open.add(job)
            self._counts.requests += 1
            self._inbox.put(job)
        try:
            return await job.done
        finally:
            job.cancelled = True
            with self._lock:
                self._counts.open.discard(job)

    def stats(self) -> EncoderStats:
        """A snapshot."""
        with self._lock:
            counts = self._counts
            return EncoderStats(counts.requests, counts.sequences, counts.tokens, len(counts.open))

    async def close(self) -> None:
        """Stop after the current run; requests that still wait fail with `Overloaded`."""
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _own(self) -> None:
        jobs: list[_Job] = []
        while True:
            jobs += self._arrived(wait=not jobs)
            if self._closing:
                for job in jobs:
                    job.settle(Overloaded("the encoder was shut down", "try again later"))
                return
            jobs = [job for job in jobs if not job.cancelled]
            try:
                self._round(jobs)
            except Exception as error:
                log.exception("a run failed")
                for job in jobs:
                    job.settle(error if isinstance(error, EdgeaiError) else EdgeaiError(f"a run failed: {error}"))
                jobs = []
            if not self._closing:  # else the round may have been left early
                jobs = self._settled(jobs)

    @staticmethod
    def _settled(jobs: Sequence[_Job]) -> list[_Job]:
        """Give every complete request its results; returns the others."""
        for job in jobs:
            if job.next == len(job.sequences):
                job.settle()
        return [job for job in jobs if job.next < len(job.sequences)]

    def _arrived(self, *, wait: bool) -> list[_Job]:
        """Requests that have come; waits for the first where there is nothing else to do."""
        arrived: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._inbox.get(block=wait and not arrived)
                if job is None:
                    break
                arrived.append(job)
        return arrived

    def _round(self, jobs: Sequence[_Job]) -> None:
        """Compute a share of every request."""
        work = [(job, position) for job in jobs for position in job.share(ROUND_TOKENS // len(jobs))]
        sequences = [job.sequences[position] for job, position in work]
        graph = self.encoder.graph
        for batch in graph.batches(sequences):
            if self._closing:
                return
            chosen = [sequences[index] for index in batch]
            vectors = finish(graph.run(chosen), self.encoder.info)
            for index, vector in zip(batch, vectors, strict=True):
                job, position = work[index]
                job.results[position] = vector
            with self._lock:
                self._counts.sequences += len(batch)
                self._counts.tokens += sum(map(len, chosen))
