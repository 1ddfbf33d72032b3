"""An engine owned by one thread, with asyncio in front.

Coroutines hand commands to the owner through a queue and receive tokens in queues of their own. The engine itself is
never touched by two threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeai.device.affinity import pin_thread
from edgeai.device.file_pages import WeightPages
from edgeai.device.power_governor import PowerGovernor, Restraint
from edgeai.device.pressure import PressureWatch
from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings
from edgeai.engine.engine import Engine
from edgeai.engine.request import EngineStats, SamplingParams, TokenOutput
from edgeai.engine.terms import DEFAULT_TERMS, Priority, Terms
from edgeai.errors import EdgeaiError, Overloaded

log = logging.getLogger(__name__)

Event = TokenOutput | Exception
LEAST_REST, MOST_REST = 0.001, 2.0  # seconds; a shorter rest is not worth the switch, in a longer one nobody is heard
STUCK_SECONDS = 600.0  # a step of the slowest board takes a small part of that
POWER_RETRY = 60  # seconds; batteries take their time


@dataclass(slots=True, eq=False)
class _Stream:
    """Where the tokens of one request go."""

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)


class AsyncEngine:
    """Takes requests from any coroutine of any event loop. Starts its thread at once; `close` ends it.

    Pages of the file `weights` that runs have read do not stay in memory for longer than some seconds.
    """

    def __init__(self, engine: Engine, power: PowerGovernor | None = None, weights: Path | None = None) -> None:
        """`power` slows the engine down, and refuses requests, where heat or a battery ask for it."""
        self._engine = engine
        self._power = power
        self._pages = WeightPages(weights)  # touched by the owner only
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._streams: dict[str, _Stream] = {}  # touched by the owner only
        self._numbers = itertools.count()
        self._closing = False
        self._beat = time.monotonic()  # when the owner last began a round
        self._watch = PressureWatch(self.wake, engine.memory.pressure)
        self._thread = threading.Thread(target=self._own, name="edgeai-engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        return self._engine.context_length

    async def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        terms: Terms = DEFAULT_TERMS,
        adapter: Adapter | None = None,
    ) -> AsyncGenerator[TokenOutput, None]:
        """Tokens of one request. Closing the generator, or cancelling its task, cancels the request.

        Raises `InvalidInput`, `ContextLengthExceeded`, `Overloaded` or `DeadlineExceeded` in place of the first token.
        """
        self._engine.check(prompt, params)  # reads constants only
        if self._power is not None:
            _check_power(self._power.look(), terms)
        if self._closing:
            raise Overloaded("the engine is shutting down", "try again later")
        request_id = str(next(self._numbers))
        stream = _Stream(asyncio.get_running_loop())
        self._commands.put(lambda: self._add(request_id, stream, prompt, params, adapter, terms))
        if not self._thread.is_alive():
            raise Overloaded("the engine was shut down", "try again later")
        try:
            while True:
                event = await stream.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            self._commands.put(lambda: self._cancel(request_id))

    def stats(self) -> EngineStats:
        """A snapshot, perhaps a step old."""
        stats = self._engine.stats()
        return replace(stats, alive=self.alive, rows=min(stats.rows, self._allowed_rows()))

    @property
    def alive(self) -> bool:
        """Whether the owner is there and, if it has work, came back from its last step."""
        stuck = self._engine.has_work and time.monotonic() - self._beat > STUCK_SECONDS
        return self._thread.is_alive() and not stuck

    def wake(self) -> None:
        """Have the owner look at memory, even if there is nothing else to do."""
        self._commands.put(lambda: None)

    @property
    def settings(self) -> EngineSettings:
        """What the engine was made with."""
        return self._engine.settings

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in the KV cache."""
        return self._engine.shape.token_bytes

    async def limit_kv(self, kv_bytes: int) -> None:
        """Let the KV cache have so many bytes from the next step on; what it has beyond them is free then."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def limit() -> None:
            try:
                self._engine.memory.share(kv_bytes)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop was closed; nobody is waiting any more
                    loop.call_soon_threadsafe(done.set)

        self._commands.put(limit)
        if not self._closing:  # else nobody obeys any more, and the memory is free soon
            await done.wait()

    async def close(self) -> None:
        """Stop after the current step; requests that still run fail with `Overloaded`."""
        self._closing = True
        self.wake()
        await asyncio.to_thread(self._thread.join)
        self._watch.close()
        self._engine.memory.close()
        self._end()  # once more, for requests that came while the owner was leaving

    def _own(self) -> None:
        """The owner's loop: obey commands, compute a step, deliver; sleep when there is nothing to do."""
        pin_thread(self._engine.settings.cpus)
        self._pages.read()  # by loading
        while not self._closing:
            try:
                self._round()
            except Exception as error:  # whatever it was: those who come next find an engine
                log.exception("a step failed")
                self._fail_all(error)
        self._end()

    def _round(self) -> None:
        self._obey(wait=not self._engine.has_work)
        self._pages.release_if_due()
        if self._engine.has_work:
            self._pages.read()
        self._heed_power()
        began = self._beat = time.monotonic()
        self._deliver(self._engine.step())
        self._deliver_failures()
        self._rest(time.monotonic() - began)

    def _heed_power(self) -> None:
        """Let no more sequences begin than it allows now."""
        self._engine.scheduler.allowed_rows = self._allowed_rows()

    def _allowed_rows(self) -> int:
        """How many sequences power and heat let run at once."""
        most = self._engine.settings.max_rows
        return most if self._power is None else self._power.look().rows(most)

    def _rest(self, worked: float) -> None:
        """Sleep for the part of the time that power and heat leave free."""
        rest = self._power.rest(worked) if self._power is not None and self._engine.has_work else 0.0
        if rest > LEAST_REST:
            time.sleep(min(rest, MOST_REST))

    def _end(self) -> None:
        self._obey(wait=False)
        self._fail_all(Overloaded("the engine was shut down", "try again later"))

    def _obey(self, *, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            sleeps = (self._engine.memory.idle_seconds(watched=self._watch.armed), self._pages.seconds_left())
            timeout = min((seconds for seconds in sleeps if seconds is not None), default=None)
            while True:
                self._commands.get(block=wait, timeout=timeout)()
                wait = False

    def _add(
        self,
        request_id: str,
        stream: _Stream,
        prompt: Sequence[int],
        params: SamplingParams,
        adapter: Adapter | None,
        terms: Terms,
    ) -> None:
        self._streams[request_id] = stream
        self._heed_power()  # which may have changed since the last step
        try:
            self._engine.add(request_id, prompt, params, adapter, terms)
        except Exception as error:  # concerns nobody else
            if not isinstance(error, EdgeaiError):
                log.exception("a request could not be taken")
            self._send({request_id: [_as_failure(error)]})

    def _cancel(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        self._engine.cancel(request_id)

    def _fail_all(self, error: Exception) -> None:
        failure = _as_failure(error)
        self._send({request_id: [failure] for request_id in self._streams})
        failed = list(self._streams)
        self._streams.clear()
        for request_id in failed:
            try:
                self._engine.cancel(request_id)
            except Exception:  # the others leave all the same
                log.exception("a request could not be taken out")

    def _deliver(self, outputs: Sequence[tuple[str, TokenOutput]]) -> None:
        news: dict[str, list[Event]] = defaultdict(list)
        for request_id, output in outputs:
            news[request_id].append(output)
        self._send(news)

    def _deliver_failures(self) -> None:
        if self._engine.failures:
            self._send({request_id: [error] for request_id, error in self._engine.failures.items()})
            self._engine.failures.clear()

    def _send(self, events: dict[str, list[Event]]) -> None:
        """Wake each event loop once for all its streams."""
        batches: dict[asyncio.AbstractEventLoop, list[tuple[_Stream, list[Event]]]] = defaultdict(list)
        for request_id, news in events.items():
            stream = self._streams.get(request_id)
            if stream is not None:
                batches[stream.loop].append((stream, news))
        for loop, batch in batches.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed; nobody is listening any more
                loop.call_soon_threadsafe(_put_all, batch)


def _as_failure(error: Exception) -> EdgeaiError:
    """What the client of a request that ended so is told."""
    return error if isinstance(error, EdgeaiError) else EdgeaiError(f"the engine failed: {error}")


def _check_power(restraint: Restraint, terms: Terms) -> None:
    """Raises `Overloaded` for a request that the device has no energy for."""
    waits = terms.priority == Priority.BATCH and not restraint.batch
    if restraint.refusing or waits:
        what = "only what cannot wait is answered" if waits and not restraint.refusing else "nothing is answered"
        raise Overloaded(f"{restraint.why}: {what} now", "try again when it is charged", retry_after=POWER_RETRY)


def _put_all(batch: Sequence[tuple[_Stream, Sequence[Event]]]) -> None:
    for stream, events in batch:
        for event in events:
            stream.events.put_nowait(event)
