"""The sequences of one request: started together, merged into one stream, cancelled together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edgeai.engine.request import SamplingParams
from edgeai.engine.terms import Terms
from edgeai.errors import Overloaded
from edgeai.server.metrics import ModelMetrics

if TYPE_CHECKING:
    from edgeai.engine.request import TokenOutput
    from edgeai.model import AsyncModel, Chunk

PARALLEL = 8  # sequences of one request that may be in the engine at once; the others follow


@dataclass(frozen=True, slots=True)
class Job:
    """One choice of the answer. Jobs with the same prompt follow its leader, which fills the prefix cache."""

    choice: int
    prompt: Sequence[int]
    params: SamplingParams
    stop: Sequence[str]
    leader: int
    shown: frozenset[int] = frozenset()  # control tokens that are part of the text


def plan(
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    stop: Sequence[str],
    samples: int,
    *,
    shown: frozenset[int] = frozenset(),
) -> list[Job]:
    """`samples` jobs for each prompt, in the order of the choices; sample i has the seed `seed + i`."""
    return [
        Job(number * samples + sample, prompt, _with_seed(params, sample), stop, number * samples, shown)
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


def _with_seed(params: SamplingParams, sample: int) -> SamplingParams:
    return params if params.seed is None else replace(params, seed=(params.seed + sample) % 2**63)


@dataclass(slots=True)
class Usage:
    """Tokens of a request. A prompt that several samples share is counted once."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(slots=True)
class _Progress:
    """How far one job has come."""

    prefilled: asyncio.Event = field(default_factory=asyncio.Event)
    last: float = 0.0  # when its newest token came


class Generation:
    """Iterates over (choice, chunk) of all jobs as they come; leaving the context cancels what still runs.

    Chunks wait here for a slow client, never in the engine: its slot is free as soon as the sequence is complete.
    Raises what the model raised, such as `ContextLengthExceeded` or `Overloaded`, for the first job that failed.
    """

    def __init__(
        self, model: AsyncModel, jobs: Sequence[Job], metrics: ModelMetrics, *, arrived: float, terms: Terms
    ) -> None:
        self.usage = Usage(prompt=sum(len(job.prompt) for job in jobs if job.choice == job.leader))
        self._model = model
        self._jobs = jobs
        self._metrics = metrics
        self._arrived = arrived
        self._terms = terms
        self._progress = {job.choice: _Progress() for job in jobs}
        self._chunks: asyncio.Queue[tuple[int, Chunk] | None] = asyncio.Queue()
        self._places = asyncio.Semaphore(PARALLEL)
        self._running: set[int] = set()  # choices that have a slot
        self._slot_freed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # whoever iterated has seen it; a client that left need not

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Chunk]:
        item = await self._chunks.get()
        if item is None:
            await self._raise_failure()
            raise StopAsyncIteration
        return item

    async def _raise_failure(self) -> None:
        if self._task is None:
            return
        try:
            await self._task
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for job in self._jobs:
                    group.create_task(self._sequence(job))
        finally:
            self._chunks.put_nowait(None)

    async def _sequence(self, job: Job) -> None:
        """Run one job; where the engine's queue is full, wait for a slot of this very request, if it has any."""
        if job.choice != job.leader:
            await self._progress[job.leader].prefilled.wait()
        async with self._places:
            while not await self._admitted(job):
                await self._slot_freed.wait()
        self._progress[job.choice].prefilled.set()

    async def _admitted(self, job: Job) -> bool:
        """Run the job to its end; False if the queue is full now but another sequence of this request will end."""
        self._slot_freed.clear()
        try:
            await self._stream(job)
        except Overloaded:
            if self._progress[job.choice].last or not self._running:
                raise
            return False
        finally:
            if job.choice in self._running:
                self._running.remove(job.choice)
                self._slot_freed.set()
        return True

    async def _stream(self, job: Job) -> None:
        stream = self._model.stream(job.prompt, job.params, job.stop, terms=self._terms, shown=job.shown)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                self._note(job, chunk)
                self._chunks.put_nowait((job.choice, chunk))

    def _note(self, job: Job, chunk: Chunk) -> None:
        """Keep the books: usage, latencies, and who may start."""
        if not chunk.tokens:
            return
        progress, now = self._progress[job.choice], time.perf_counter()
        if progress.last:
            self._metrics.token_gap((now - progress.last) / len(chunk.tokens))
        else:
            self._begin(job, chunk.tokens[0], now)
        progress.last = now
        self.usage.completion += len(chunk.tokens)

    def _begin(self, job: Job, token: TokenOutput, now: float) -> None:
        self._running.add(job.choice)
        self._progress[job.choice].prefilled.set()
        if job.choice == job.leader:
            self._metrics.first_token(now - self._arrived)
            self.usage.cached += token.cached_tokens
