"""Which models are in memory: loaded when they are asked for, unloaded when others need the room or their time is over.

One model is loaded or unloaded at a time, so that memory that was measured is still there a moment later. What has
running requests is never unloaded: a request for another model waits for them, for a while, and those that come in the
meantime for models that are in its way wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence, Set
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from edgeai.config import FOREVER
from edgeai.errors import OutOfMemory, Overloaded
from edgeai.package.package import Package
from edgeai.server.pool.resident import Resident, State

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.model import AsyncModel

PATIENCE = 60.0  # seconds that a request may wait for the requests of other models to end
RETRY_SECONDS = 10

log = logging.getLogger("edgeai.server")


class Loader(Protocol):
    """Brings packages into memory and out of it again."""

    def load(self, package: Package) -> AsyncModel | AsyncEncoder:
        """Takes seconds; for a thread. Raises `PackageError`, `OutOfMemory`, `TrialFailed`."""
        ...

    async def unload(self, package: Package, loaded: AsyncModel | AsyncEncoder | None) -> None:
        """Its memory is free when this returns, if nobody else holds on to it."""
        ...


class Room(Protocol):
    """The memory that models share."""

    def fits(self, package: Package) -> bool:
        """Whether it could be loaded now, with room for a conversation of a decent length."""
        ...

    async def squeeze(self, models: Sequence[AsyncModel], package: Package) -> None:
        """Have the models in memory leave a share to this one."""
        ...

    async def share_out(self, models: Sequence[AsyncModel]) -> None:
        """Divide what there is among the models in memory."""
        ...


class Residents:
    """For one event loop. `adopt` and `close` frame its life."""

    def __init__(
        self,
        loader: Loader,
        room: Room,
        *,
        pinned: Iterable[str] = (),
        keep_alive: float = FOREVER,
        patience: float = PATIENCE,
    ) -> None:
        self._loader, self._room = loader, room
        self._pinned, self._keep_alive, self._patience = frozenset(pinned), keep_alive, patience
        self._current: dict[str, Resident] = {}
        self._retired: list[Resident] = []
        self._turn = asyncio.Lock()
        self._rested = asyncio.Event()  # set whenever one has become idle
        self._way_free = asyncio.Event()  # cleared while a load waits for others to become idle
        self._way_free.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self.loads = self.evictions = 0

    def adopt(self, name: str, package: Package, loaded: AsyncModel | AsyncEncoder) -> None:
        """Take over a model that was loaded before the event loop ran."""
        resident = Resident(name, package, pinned=name in self._pinned)
        resident.put(loaded)
        self._current[name] = resident
        self.loads += 1

    def all(self) -> list[Resident]:
        """All that are in memory or on their way, replaced ones too."""
        return [*self._current.values(), *self._retired]

    def current(self) -> list[Resident]:
        """All but replaced ones."""
        return [*self._current.values()]

    def get(self, name: str) -> Resident | None:
        """What is in memory, or on its way there, under this name."""
        return self._current.get(name)

    def state(self, name: str) -> State:
        """Where the model of this name is."""
        resident = self._current.get(name)
        return "available" if resident is None else resident.state

    def follow(self, pinned: Iterable[str], keep_alive: float) -> None:
        """Take over other pins, and another `keep_alive` where the last request did not ask for its own."""
        self._pinned, self._keep_alive = frozenset(pinned), keep_alive
        now = asyncio.get_running_loop().time()
        for resident in self.all():
            resident.pinned = resident.name in self._pinned
            if not resident.asked:
                resident.expires = (resident.last_used or now) + keep_alive
        self._rested.set()  # what is no longer pinned may make room
        self._sweep_when_due()

    def load(self, name: str, package: Package) -> None:
        """Bring it into memory in the background, as if it were used. What goes wrong is logged."""
        self._start(self._touch(name, package))

    async def _touch(self, name: str, package: Package) -> None:
        async with self.use(name, package):
            pass

    def is_pinned(self, name: str) -> bool:
        """Whether the model of this name stays in memory, once it is there."""
        return name in self._pinned

    @asynccontextmanager
    async def use(self, name: str, package: Package, keep_alive: float | None = None) -> AsyncIterator[Resident]:
        """The package in memory, for as long as the block lasts; `keep_alive` is for afterwards, in seconds.

        Raises what loading raises, `Overloaded` where others need the memory for too long.
        """
        resident = await self._lease(name, package)
        try:
            await self._loaded(resident)
            yield resident
        finally:
            resident.leases -= 1
            now = asyncio.get_running_loop().time()
            resident.last_used = now
            resident.asked = keep_alive is not None
            resident.expires = now + (self._keep_alive if keep_alive is None else keep_alive)
            self._settle(resident)

    def unload(self, name: str) -> None:
        """Unload as soon as no request needs it; pinned ones stay."""
        resident = self._current.get(name)
        if resident is not None:
            resident.asked, resident.expires = True, 0.0
            self._settle(resident)

    def keep_only(self, names: Set[str]) -> None:
        """Let go of all but these: the others are no longer installed."""
        for name in self._current.keys() - names:
            self._retire(self._current[name])

    async def close(self) -> None:
        """Unload everything; what still runs is cancelled."""
        self._closing = True
        self._rested.set()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for resident in self.all():
            await self._unload(resident)

    async def _lease(self, name: str, package: Package) -> Resident:
        """The resident of just this package, with one lease more."""
        current = self._current.get(name)
        if current is not None and current.package.digest != package.digest:
            self._retire(current)
            current = None
        if current is None:
            current = self._current[name] = Resident(name, package, pinned=name in self._pinned)
        if current.loaded and not current.pinned and not self._way_free.is_set():
            await self._way_free.wait()
            return await self._lease(name, package)
        current.leases += 1
        return current

    async def _loaded(self, resident: Resident) -> None:
        """Wait until it is loaded: all that wait for one model wait for one load."""
        if resident.loaded:
            return
        if resident.loading is None:
            resident.loading = self._start(self._load(resident))
        await asyncio.shield(resident.loading)

    async def _load(self, resident: Resident) -> None:
        try:
            async with self._turn:
                await self._make_room(resident)
                if self._closing:
                    raise Overloaded("the server is shutting down", "try again later")
                started = asyncio.get_running_loop().time()
                log.info("loading %s", resident.name)
                resident.put(await self._try_load(resident.package))
                resident.load_seconds = asyncio.get_running_loop().time() - started
                self.loads += 1
                await self._room.share_out(self._models())
        finally:
            resident.loading = None

    async def _try_load(self, package: Package) -> AsyncModel | AsyncEncoder:
        try:
            return await asyncio.to_thread(self._loader.load, package)
        except OutOfMemory as error:
            if not any(resident.loaded and resident.leases for resident in self.all()):
                raise
            raise Overloaded(
                f"{package.name} does not fit beside models that are in use: {error.message}",
                f"try again in {RETRY_SECONDS} seconds",
                retry_after=RETRY_SECONDS,
            ) from error

    async def _make_room(self, resident: Resident) -> None:
        """Have others give up cache, then memory, the least recently used first; wait for those that are in use."""
        if self._room.fits(resident.package):
            return
        await self._room.squeeze(self._models(), resident.package)
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            while not self._room.fits(resident.package):
                victim = min(filter(lambda r: r.idle, self.all()), key=_eviction_order, default=None)
                if victim is not None:
                    log.info("unloading %s: %s needs its memory", victim.name, resident.name)
                    self.evictions += 1
                    await self._unload(victim)
                elif not await self._one_rests(deadline):
                    return  # and the load says what is missing, or does with less
        finally:
            self._way_free.set()

    async def _one_rests(self, deadline: float) -> bool:
        """Wait until a model that could be unloaded has become idle; False when there is none, or time is over."""
        in_use = any(resident.loaded and resident.leases and not resident.pinned for resident in self.all())
        if not in_use or self._closing:
            return False
        self._way_free.clear()
        self._rested.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await self._rested.wait()
        except TimeoutError:
            return False
        return True

    def _retire(self, resident: Resident) -> None:
        del self._current[resident.name]
        resident.retired = True
        self._retired.append(resident)
        self._settle(resident)

    def _settle(self, resident: Resident) -> None:
        """Do what is due with one that may have become idle."""
        if resident.leases:
            return
        if not resident.loaded and resident.loading is None:
            self._forget(resident)
        elif resident.idle:
            self._rested.set()
            self._sweep_when_due()

    def _sweep_when_due(self) -> None:
        """Unload what is idle and retired or out of time, now or when the first of it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [0.0 if resident.retired else resident.expires for resident in self.all() if resident.idle]
        loop = asyncio.get_running_loop()
        if not due or min(due) == FOREVER:
            return
        if min(due) <= loop.time():
            self._start(self._sweep())
        else:
            self._timer = loop.call_at(min(due), lambda: self._start(self._sweep()))

    async def _sweep(self) -> None:
        async with self._turn:
            now, before = asyncio.get_running_loop().time(), len(self.all())
            for resident in self.all():
                if resident.idle and (resident.retired or resident.expires <= now):
                    log.info("unloading %s", resident.name)
                    await self._unload(resident)
            if len(self.all()) < before:
                await self._room.share_out(self._models())
        self._sweep_when_due()

    async def _unload(self, resident: Resident) -> None:
        self._forget(resident)
        await self._loader.unload(resident.package, resident.take())

    def _forget(self, resident: Resident) -> None:
        if resident in self._retired:
            self._retired.remove(resident)
        elif self._current.get(resident.name) is resident:
            del self._current[resident.name]

    def _models(self) -> list[AsyncModel]:
        return [resident.model for resident in self.all() if resident.model is not None]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # those that waited for a load know it too
            log.error("a model could not be loaded or unloaded: %s", error)


def _eviction_order(resident: Resident) -> tuple[bool, bool, float]:
    """Replaced ones first, then the least recently used; at last those that a request wanted to stay for ever."""
    return not resident.retired, resident.asked and resident.expires == FOREVER, resident.last_used
