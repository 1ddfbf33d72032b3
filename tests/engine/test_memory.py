"""An engine that runs out of memory: what it refuses, what it gives back at rest, and what it measures at load."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeai.device.pressure import Reading
from edgeai.device.profile import Memory
from edgeai.engine import warm_up
from edgeai.engine.async_engine import AsyncEngine
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.governor import Governor
from edgeai.engine.memory import RETRY_SECONDS
from edgeai.engine.request import SamplingParams
from edgeai.errors import OutOfMemory, Overloaded
from edgeai.onnx_session import Interrupted
from tests.fixtures.patience import PATIENCE, eventually
from tests.fixtures.weather import PLENTY

MIB = 1 << 20
SETTINGS = EngineSettings(threads=1, max_rows=2, block_tokens=8, kv_budget_bytes=1 << 22)
PROMPT = list(range(2, 60))


@dataclass
class Machine:
    """Memory to be set by hand; every look at the clock is half a second later."""

    left: int = PLENTY
    now: float = 0.0
    pressure: None = None
    limited: bool = False

    def read(self) -> Reading:
        return Reading(self.left, 0.0, 0)

    def available(self) -> int:
        return self.left

    def clock(self) -> float:
        self.now += 0.5
        return self.now


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def engine(tiny_graph: Path, tiny_shape: ModelShape, machine: Machine) -> Engine:
    return Engine(tiny_graph, tiny_shape, SETTINGS, governor=Governor(machine, 8 * MIB, clock=machine.clock))


def test_new_requests_are_refused_and_welcome_again(engine: Engine, machine: Machine) -> None:
    machine.left = 0
    with pytest.raises(Overloaded) as raised:
        engine.add("a", PROMPT, SamplingParams(max_tokens=3))
    assert raised.value.retry_after == RETRY_SECONDS
    assert not engine.has_work
    machine.left = PLENTY
    for _ in range(60):
        engine.step()
    assert engine.stats().memory.level == 0
    engine.add("a", PROMPT, SamplingParams(max_tokens=3))
    assert engine.has_work


def test_long_prompts_are_refused_before_short_ones(engine: Engine, machine: Machine) -> None:
    machine.left = int(1.5 * MIB)
    limit = engine.context_length // 4
    with pytest.raises(Overloaded, match=f"prompt of {limit + 1} tokens"):
        engine.add("long", [5] * (limit + 1), SamplingParams(max_tokens=1))
    assert engine.stats().memory.name == "shorter prompts"
    engine.add("short", [5] * limit, SamplingParams(max_tokens=1))


def test_a_run_is_interrupted_when_memory_goes_meanwhile(engine: Engine, machine: Machine) -> None:
    """A run as long as on a small board; the answer is the one that would have been given in peace."""
    params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)

    def answer(name: str) -> list[int]:
        engine.add(name, PROMPT, params)
        tokens: list[int] = []
        while engine.has_work:
            tokens += [output.token_id for _, output in engine.step()]
        return tokens

    expected = answer("in peace")
    prefill, interrupted = engine.runner.prefill, threading.Event()

    def slow(*args: Any) -> Any:
        machine.left = 2 * MIB  # level 2 would be right
        logits = prefill(*args)
        if interrupted.wait(PATIENCE) and not resumed.is_set():
            machine.left, _ = PLENTY, resumed.set()
            raise Interrupted
        return logits

    resumed = threading.Event()
    machine.left = 20 * MIB  # little enough to look within steps
    engine.runner.prefill = slow  # type: ignore[method-assign]
    engine.runner.interrupt = interrupted.set  # type: ignore[method-assign]
    engine.memory._guard._interrupt = interrupted.set  # type: ignore[union-attr]
    for _ in range(3):
        engine.step()
    assert answer("interrupted") == expected
    assert resumed.is_set()


def test_what_a_long_run_computed_is_cached_only_where_there_is_room_afterwards(
    engine: Engine, machine: Machine
) -> None:
    prefill = engine.runner.prefill

    def long(*args: Any) -> Any:
        logits = prefill(*args)
        machine.left = 5 * MIB - 1  # less than growth leaves free, but still no level
        return logits

    engine.runner.prefill = long  # type: ignore[method-assign]
    engine.add("a", PROMPT, SamplingParams(max_tokens=4, ignore_eos=True))
    engine.step()
    assert engine.cache.used_bytes == 0
    assert engine.stats().memory.level == 0
    assert engine.stats().running == 1


def test_at_rest_the_cache_is_given_back_and_the_level_falls_by_itself(engine: Engine, machine: Machine) -> None:
    async def answer() -> None:
        async for _ in owner.generate(PROMPT, SamplingParams(max_tokens=3, ignore_eos=True)):
            pass

    owner = AsyncEngine(engine)
    try:
        asyncio.run(answer())
        assert engine.cache.used_bytes > 0
        machine.left = 2 * MIB
        owner.wake()  # as the kernel's word does
        assert eventually(lambda: engine.cache.used_bytes == 0)
        assert engine.stats().memory.level == 2
        machine.left = PLENTY
        assert eventually(lambda: engine.stats().memory.level == 0)
        assert engine.memory.idle_seconds(watched=False) is None  # nothing is looked at any more
    finally:
        asyncio.run(owner.close())


def test_at_rest_a_neighbour_is_noticed_where_the_kernel_says_nothing(engine: Engine, machine: Machine) -> None:
    """In a control group the kernel kills without having made anybody wait."""

    async def answer() -> None:
        async for _ in owner.generate(PROMPT, SamplingParams(max_tokens=3, ignore_eos=True)):
            pass

    machine.left = 9 * MIB
    owner = AsyncEngine(engine)
    try:
        asyncio.run(answer())
        assert engine.cache.used_bytes > 0
        assert engine.memory.idle_seconds(watched=True) is None  # the machine's memory does not end without a word
        machine.left = 2 * MIB
        assert eventually(lambda: engine.cache.used_bytes == 0)
        assert engine.stats().memory.level == 2
    finally:
        asyncio.run(owner.close())


def test_the_cache_is_given_back_while_a_run_goes_on(engine: Engine, machine: Machine) -> None:
    """Nothing has to be interrupted for it, and nothing is touched once the run is over."""
    params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    machine.left = 20 * MIB  # little enough to look within steps
    engine.add("first", PROMPT, params)
    while engine.has_work:
        engine.step()
    assert engine.cache.used_bytes > 0
    given_back, prefill = [], engine.runner.prefill

    def slow(*args: Any) -> Any:
        machine.left = 5 * MIB - 1  # less than growth leaves free, but still no level
        given_back.append(eventually(lambda: engine.cache.used_bytes == 0))
        machine.left = PLENTY
        return prefill(*args)

    engine.runner.prefill = slow  # type: ignore[method-assign]
    engine.add("second", PROMPT[::-1], params)
    while engine.has_work:
        engine.step()
    assert given_back == [True]
    assert engine.stats().memory.level == 0


def test_the_budget_is_what_is_left_when_the_model_has_run(
    tiny_graph: Path, tiny_shape: ModelShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=1 << 22, tight=True)
    left = Memory(total=1 << 30, available=25 * MIB, limit=64 * MIB)  # of which 24 MiB are the reserve
    monkeypatch.setattr(warm_up, "read_memory", lambda: left)
    engine = Engine(tiny_graph, tiny_shape, tight)
    assert engine.settings.kv_budget_bytes == engine.scheduler.budget.limit == MIB
    assert engine.context_length == min(512, MIB // tiny_shape.token_bytes)
    assert not engine.runner.arena.occupied
    left = Memory(total=1 << 30, available=24 * MIB, limit=64 * MIB)
    with pytest.raises(OutOfMemory, match="24 MiB of the 64 MiB"):
        Engine(tiny_graph, tiny_shape, tight)


def test_a_smaller_share_is_obeyed_at_once_and_one_request_alone_still_gets_on(engine: Engine) -> None:
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)

    def answers(names: str) -> dict[str, list[int]]:
        for name in names:
            engine.add(name, PROMPT, params)
        tokens: dict[str, list[int]] = {name: [] for name in names}
        while engine.has_work:
            for name, output in engine.step():
                tokens[name].append(output.token_id)
        return tokens

    expected = answers("ab")
    assert engine.cache.used_bytes
    engine.memory.share(1)
    assert engine.cache.used_bytes == 0
    assert engine.stats().kv_budget_bytes == 1
    assert answers("cd") == {"c": expected["a"], "d": expected["b"]}
    engine.memory.share(1 << 40)
    assert engine.stats().kv_budget_bytes == SETTINGS.kv_budget_bytes
