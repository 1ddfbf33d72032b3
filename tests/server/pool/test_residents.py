"""Who is in memory when: loading once for all, room made by what is idle, patience, pins, keep_alive, replacement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from edgeai.errors import OutOfMemory, Overloaded, PackageError
from edgeai.server.pool.residents import Residents
from tests.server.pools import FunctionLoader, package_like

SIZES = {"a": 4, "b": 4, "c": 4, "large": 9, "huge": 99}


class Loaded:
    """A model that knows whether it has been closed."""

    def __init__(self, package: Any, house: House) -> None:
        self.package, self.house = package, house

    async def close(self) -> None:
        self.house.free += self.package.size_bytes
        self.house.events.append(f"-{self.package.name}")


class House:
    """Ten units of memory: the loader and the room in one, counting."""

    def __init__(self, *, free: int = 10, seconds: float = 0.0) -> None:
        self.free = free
        self.events: list[str] = []
        self.failing: Exception | None = None
        self.loader = FunctionLoader(self._load)

    def _load(self, package: Any) -> Loaded:
        self.events.append(f"+{package.name}")
        if self.failing is not None:
            raise self.failing
        if package.size_bytes > self.free:
            raise OutOfMemory(f"{package.name} needs {package.size_bytes}, {self.free} are free")
        self.free -= package.size_bytes
        return Loaded(package, self)

    def fits(self, package: Any) -> bool:
        return bool(package.size_bytes <= self.free)

    async def squeeze(self, models: Sequence[Any], package: Any) -> None:
        self.events.append("squeeze")

    async def share_out(self, models: Sequence[Any]) -> None:
        pass


def package(name: str, digest: str = "0") -> Any:
    return package_like(name, digest=digest, size=SIZES[name])


def living(work: Callable[[House, Residents], Coroutine[Any, Any, None]], **options: Any) -> House:
    """Run `work` over a house; at the end everything has been closed."""
    house = House()

    async def run() -> None:
        residents = Residents(house.loader, house, **options)
        async with asyncio.timeout(30):
            await work(house, residents)
            await residents.close()
        assert residents.all() == []

    asyncio.run(run())
    assert house.free == 10
    return house


async def use(residents: Residents, name: str, keep_alive: float | None = None, digest: str = "0") -> Any:
    async with residents.use(name, package(name, digest), keep_alive) as resident:
        return resident.model


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_requests_that_come_at_once_wait_for_one_load() -> None:
    async def work(house: House, residents: Residents) -> None:
        models = await asyncio.gather(*(use(residents, "a") for _ in range(8)))
        assert len(set(models)) == 1
        assert house.events == ["+a"]
        assert await use(residents, "a") is models[0]

    living(work)


def test_a_load_that_fails_fails_for_all_who_wait_and_for_nobody_later() -> None:
    async def work(house: House, residents: Residents) -> None:
        house.failing = PackageError("a is damaged")
        failures = await asyncio.gather(*(use(residents, "a") for _ in range(3)), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["a is damaged"] * 3
        assert residents.all() == []
        house.failing = None
        assert await use(residents, "a")
        assert house.events == ["+a", "+a"]

    living(work)


def test_the_least_recently_used_idle_ones_go_and_no_more_than_must() -> None:
    async def work(house: House, residents: Residents) -> None:
        for name in ("a", "b", "a", "c"):
            await use(residents, name)
        assert house.events == ["+a", "+b", "squeeze", "-b", "+c"]
        await use(residents, "large")
        assert house.events[5:] == ["squeeze", "-a", "-c", "+large"]
        assert residents.evictions == 3

    living(work)


def test_what_is_in_use_is_waited_for() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a")):
            waiting = asyncio.create_task(use(residents, "large"))
            await until(lambda: "squeeze" in house.events)
            await asyncio.sleep(0.01)
            assert house.events == ["+a", "squeeze"]
        await waiting
        assert house.events == ["+a", "squeeze", "-a", "+large"]

    living(work)


def test_a_stream_of_requests_for_one_model_does_not_keep_another_waiting_for_ever() -> None:
    """Requests that come while a load waits for room come after it."""

    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a")):
            large = asyncio.create_task(use(residents, "large"))
            await until(lambda: "squeeze" in house.events)
            again = asyncio.create_task(use(residents, "a"))
            await asyncio.sleep(0.01)
            assert not again.done()
        await asyncio.gather(large, again)
        assert [event for event in house.events if event != "squeeze"] == ["+a", "-a", "+large", "-large", "+a"]

    living(work)


def test_patience_ends_with_when_to_try_again() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a")):
            with pytest.raises(Overloaded, match="large does not fit beside models that are in use") as caught:
                await use(residents, "large")
            assert caught.value.retry_after > 0
            assert await use(residents, "a")  # nobody is held up any more
        await use(residents, "large")

    living(work, patience=0.02)


def test_what_can_never_fit_says_so_at_once() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a")
        with pytest.raises(OutOfMemory, match="huge needs 99, 10 are free"):
            await use(residents, "huge")

    living(work)


def test_pinned_models_stay() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a", keep_alive=0)
        await use(residents, "b")
        await use(residents, "c")
        residents.unload("a")
        with pytest.raises(OutOfMemory):
            await use(residents, "large")
        assert {resident.name for resident in residents.all()} == {"a"}
        assert "-a" not in house.events

    living(work, pinned=["a"])


def test_time_is_over_after_the_last_request_only() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a"), 0):
            await use(residents, "a", keep_alive=0)
            await asyncio.sleep(0.02)
            assert house.events == ["+a"]
        await until(lambda: house.events == ["+a", "-a"])
        await use(residents, "b", keep_alive=0.03)
        await use(residents, "b")
        await until(lambda: house.events[2:] == ["+b", "-b"])

    living(work, keep_alive=0.02)


def test_for_ever_is_until_others_need_the_room() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a", keep_alive=float("inf"))
        await use(residents, "large")
        assert "-a" in house.events

    living(work, keep_alive=0.01)


def test_what_a_request_wanted_for_ever_goes_last() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a", keep_alive=float("inf"))
        await use(residents, "b")
        await use(residents, "c")
        assert house.events[-2:] == ["-b", "+c"]

    living(work)


def test_pins_and_keep_alive_change_while_it_runs() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a")
        await use(residents, "b", keep_alive=100)
        residents.follow(["b"], 0.01)
        await until(lambda: house.events == ["+a", "+b", "-a"])
        now = asyncio.get_running_loop().time()
        pinned = residents.get("b")
        assert pinned is not None
        assert pinned.seconds_left(now) is None
        residents.follow([], 0.01)
        left = pinned.seconds_left(now)
        assert left is not None
        assert 50 < left <= 100  # as its own last request wanted
        residents.load("c", package("c"))
        await until(lambda: "-c" in house.events)
        await use(residents, "large")
        assert house.events[-3:] == ["squeeze", "-b", "+large"]

    living(work)


def test_a_request_that_waits_for_a_pinned_model_has_its_room_when_it_is_no_longer_pinned() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a"), None):
            await use(residents, "b")
            waiting = asyncio.create_task(use(residents, "large"))
            await until(lambda: "squeeze" in house.events)
            assert not waiting.done()
            residents.follow([], float("inf"))
            await until(lambda: "-b" in house.events)
        await waiting

    living(work, pinned=["b"])


def test_a_package_that_was_replaced_ends_when_its_requests_do() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a")) as old:
            new = await use(residents, "a", digest="1")
            assert old.model is not new
            assert house.events == ["+a", "+a"]
        await until(lambda: house.events == ["+a", "+a", "-a"])
        assert await use(residents, "a", digest="1") is new

    living(work)


def test_what_is_no_longer_installed_goes() -> None:
    async def work(house: House, residents: Residents) -> None:
        await use(residents, "a")
        await use(residents, "b")
        residents.keep_only({"b"})
        await until(lambda: house.events == ["+a", "+b", "-a"])

    living(work, pinned=["a"])


def test_closing_does_not_wait_for_room() -> None:
    async def work(house: House, residents: Residents) -> None:
        async with residents.use("a", package("a")):
            waiting = asyncio.create_task(use(residents, "large"))
            await until(lambda: "squeeze" in house.events)
            await residents.close()
            with pytest.raises(Overloaded, match="shutting down"):
                await waiting

    living(work)
