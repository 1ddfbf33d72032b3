"""Many coroutines, one owner thread: delivery, cancelling, failures, the end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeai.device import file_pages
from edgeai.device.mappings import own_mappings
from edgeai.device.power import Power, read_power
from edgeai.device.power_governor import LOOK_SECONDS, PowerGovernor
from edgeai.engine.async_engine import LEAST_REST, MOST_REST, AsyncEngine
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine, Outputs
from edgeai.engine.naive import greedy
from edgeai.engine.request import FinishReason, SamplingParams, TokenOutput
from edgeai.engine.terms import Priority, Terms
from edgeai.errors import ContextLengthExceeded, DeadlineExceeded, EdgeaiError, InvalidInput, OutOfMemory, Overloaded
from tests.fixtures.patience import PATIENCE
from tests.fixtures.weather import Weather

SETTINGS = EngineSettings(threads=1, max_rows=3, max_queue=2, block_tokens=8, chunk_tokens=32, kv_budget_bytes=2 << 20)
GREEDY = SamplingParams(max_tokens=12, temperature=0)
ENDLESS = SamplingParams(max_tokens=500, temperature=0, ignore_eos=True)
PROMPTS = [list(range(2 + i, 30 + 5 * i)) for i in range(5)]
Scenario = Callable[[AsyncEngine, Engine], Awaitable[None]]


@pytest.fixture
def run(tiny_graph: Path, tiny_shape: ModelShape) -> Callable[..., None]:
    """Runs a scenario on an engine of its own, and closes that."""

    def running(scenario: Scenario, **changes) -> None:
        inner = Engine(tiny_graph, tiny_shape, replace(SETTINGS, **changes))

        async def main() -> None:
            engine = AsyncEngine(inner)
            try:
                await asyncio.wait_for(scenario(engine, inner), PATIENCE)
            finally:
                await engine.close()

        asyncio.run(main())

    return running


async def collect(outputs: AsyncGenerator[TokenOutput, None]) -> list[int]:
    return [output.token_id async for output in outputs]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def idle(engine: AsyncEngine) -> bool:
    stats = engine.stats()
    return not stats.running and not stats.waiting


def test_concurrent_answers_are_the_naive_ones(run, tiny_graph: Path, tiny_shape: ModelShape) -> None:
    naive = Engine(tiny_graph, tiny_shape, SETTINGS).runner

    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        answers = await asyncio.gather(*(collect(engine.generate(prompt, GREEDY)) for prompt in PROMPTS))
        assert answers == [greedy(naive, prompt, 12) for prompt in PROMPTS]
        assert idle(engine)

    run(scenario, max_queue=64)


def test_several_event_loops_share_an_engine(run) -> None:
    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        expected = await collect(engine.generate(PROMPTS[0], GREEDY))

        def elsewhere() -> list[int]:
            return asyncio.run(collect(engine.generate(PROMPTS[0], GREEDY)))

        answers = await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(3)))
        assert answers == [expected] * 3

    run(scenario, max_queue=64)


def test_closing_a_generator_frees_its_slot(run) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        outputs = engine.generate(PROMPTS[0], ENDLESS)
        await anext(outputs)
        assert engine.stats().running == 1
        await outputs.aclose()
        await until(lambda: idle(engine))
        assert not inner.runner.arena.occupied
        assert await collect(engine.generate(PROMPTS[0], GREEDY))

    run(scenario)


def test_cancelling_a_task_frees_its_slot(run) -> None:
    """A task that waits for its first token as well as one that has some."""

    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        tasks = [asyncio.create_task(collect(engine.generate(prompt, ENDLESS))) for prompt in PROMPTS]
        await until(lambda: engine.stats().running == 3)
        for task in tasks:
            task.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
        await until(lambda: idle(engine))
        assert not inner.runner.arena.occupied

    run(scenario, max_queue=64)


def test_a_cancelled_request_does_not_disturb_others(run) -> None:
    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        expected = await collect(engine.generate(PROMPTS[1], ENDLESS))
        other = asyncio.create_task(collect(engine.generate(PROMPTS[1], ENDLESS)))
        for _ in range(4):
            async with aclosing(engine.generate(PROMPTS[0], ENDLESS)) as outputs:
                await anext(outputs)
        assert await other == expected
        assert len(expected) > 100

    run(scenario)


@pytest.mark.parametrize(
    ("prompt", "params", "error"),
    [
        ([], GREEDY, InvalidInput),
        ([5] * 600, GREEDY, ContextLengthExceeded),
        ([5], replace(GREEDY, top_p=2), InvalidInput),
    ],
)
def test_refusals_come_in_place_of_the_first_token(run, prompt, params, error) -> None:
    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        with pytest.raises(error):
            await anext(engine.generate(prompt, params))
        assert await collect(engine.generate(PROMPTS[0], GREEDY))

    run(scenario)


def test_a_full_queue_is_told_so(run) -> None:
    """One runs, two wait; the fourth is refused, and the others do not notice."""

    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        first = engine.generate(PROMPTS[0], ENDLESS)
        await anext(first)
        waiting = [asyncio.create_task(collect(engine.generate(prompt, GREEDY))) for prompt in PROMPTS[:2]]
        await until(lambda: engine.stats().waiting == 2)
        with pytest.raises(Overloaded, match="2 requests are waiting"):
            await anext(engine.generate(PROMPTS[0], GREEDY))
        await first.aclose()
        assert all(await asyncio.gather(*waiting))

    run(scenario, max_rows=1)


def test_a_request_that_waits_beyond_its_deadline_is_told_so(run) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        decode = inner.runner.decode

        def slowly(*arguments):
            time.sleep(0.01)
            return decode(*arguments)

        inner.runner.decode = slowly  # type: ignore[method-assign]
        first = engine.generate(PROMPTS[0], ENDLESS)
        await anext(first)
        with pytest.raises(DeadlineExceeded):
            await anext(engine.generate(PROMPTS[1], GREEDY, terms=Terms(deadline=time.monotonic() + 0.1)))
        assert await anext(first)
        assert engine.stats().expired == 1
        assert engine.stats().waiting == 0
        await first.aclose()

    run(scenario, max_rows=1, draft_tokens=0)


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (RuntimeError("out of luck"), EdgeaiError, "the engine failed: out of luck"),
        (OutOfMemory("no memory", "less"), OutOfMemory, "no memory"),
    ],
)
def test_a_failing_step_fails_its_requests_only(run, error, raised, words, caplog) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        expected = await collect(engine.generate(PROMPTS[0], GREEDY))
        working = inner.runner.decode

        def failing(*_: object) -> None:
            inner.runner.decode = working  # type: ignore[method-assign]
            raise error

        tasks = [asyncio.create_task(collect(engine.generate(prompt, ENDLESS))) for prompt in PROMPTS[:3]]
        await until(lambda: engine.stats().running == 3)
        inner.runner.decode = failing  # type: ignore[method-assign, assignment]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, raised)
            assert words in str(result)
        assert "a step failed" in caplog.text
        await until(lambda: idle(engine))
        assert not inner.runner.arena.occupied
        assert await collect(engine.generate(PROMPTS[0], GREEDY)) == expected

    run(scenario, max_queue=64)


def failing_once(error: Exception, working: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in that fails the first time, and from then on is what it stands for."""
    failures = [error]

    def call(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return working(*arguments)

    return call


def test_a_request_that_cannot_be_taken_fails_alone(run, caplog) -> None:
    """Taking one opens files of the kernel, say, and descriptors may be used up."""

    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        first = engine.generate(PROMPTS[0], ENDLESS)
        await anext(first)
        inner.memory.check = failing_once(OSError(24, "too many open files"), inner.memory.check)  # type: ignore[method-assign]
        with pytest.raises(EdgeaiError, match="too many open files"):
            await anext(engine.generate(PROMPTS[1], GREEDY))
        assert await collect(engine.generate(PROMPTS[1], GREEDY))
        assert await anext(first)
        await first.aclose()
        assert "a request could not be taken" in caplog.text

    run(scenario)


@pytest.mark.parametrize("failing", ["commands", "pages", "power"])
def test_what_fails_between_steps_does_not_end_the_engine(run, failing: str, caplog) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        expected = await collect(engine.generate(PROMPTS[0], GREEDY))
        first = engine.generate(PROMPTS[0], ENDLESS)
        await anext(first)
        error = RuntimeError("out of luck")
        if failing == "commands":
            inner.cancel = failing_once(error, inner.cancel)  # type: ignore[method-assign]
            engine._commands.put(lambda: engine._cancel("nobody"))
        elif failing == "pages":
            engine._pages.release_if_due = failing_once(error, lambda: None)  # type: ignore[method-assign]
        else:
            engine._allowed_rows = failing_once(error, engine._allowed_rows)  # type: ignore[method-assign]
        with pytest.raises(EdgeaiError, match="the engine failed: out of luck"):
            await collect(first)
        assert engine.alive
        assert await collect(engine.generate(PROMPTS[0], GREEDY)) == expected
        assert not inner.runner.arena.occupied
        assert "a step failed" in caplog.text

    run(scenario)


def test_requests_that_cannot_be_taken_out_do_not_end_the_engine(run, caplog) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        first = engine.generate(PROMPTS[0], ENDLESS)
        await anext(first)
        inner.cancel = failing_once(RuntimeError("twice"), inner.cancel)  # type: ignore[method-assign]
        inner.step = failing_once(RuntimeError("out of luck"), inner.step)  # type: ignore[method-assign]
        with pytest.raises(EdgeaiError, match="out of luck"):
            await collect(first)
        await until(lambda: idle(engine))  # the client takes it out once more
        assert await collect(engine.generate(PROMPTS[0], GREEDY))
        assert "a request could not be taken out" in caplog.text

    run(scenario)


def test_closing_ends_what_runs_and_refuses_the_rest(run) -> None:
    async def scenario(engine: AsyncEngine, inner: Engine) -> None:
        tasks = [asyncio.create_task(collect(engine.generate(prompt, ENDLESS))) for prompt in PROMPTS]
        await until(lambda: engine.stats().running == 3)
        await engine.close()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, Overloaded)
            assert "shut down" in result.message
        with pytest.raises(Overloaded, match="shutting down"):
            await anext(engine.generate(PROMPTS[0], GREEDY))
        assert not any(thread.name == "edgeai-engine" for thread in threading.enumerate())
        assert not inner.has_work
        await engine.close()  # again

    run(scenario, max_queue=64)


def test_an_idle_engine_sleeps(run) -> None:
    """The owner waits for commands instead of asking again and again."""

    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        await collect(engine.generate(PROMPTS[0], GREEDY))
        await asyncio.sleep(0.05)
        before = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - before < 0.1

    run(scenario)


def test_the_last_token_says_why(run) -> None:
    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        outputs = [output async for output in engine.generate(PROMPTS[0], replace(ENDLESS, max_tokens=5))]
        assert [output.finish_reason for output in outputs] == [None] * 4 + [FinishReason.LENGTH]
        assert engine.context_length == 512

    run(scenario)


def test_a_listener_that_is_gone_is_no_failure(run) -> None:
    """Its event loop was closed with the request still running."""

    async def scenario(engine: AsyncEngine, _: Engine) -> None:
        async def abandon() -> None:
            outputs = engine.generate(PROMPTS[0], ENDLESS)
            await anext(outputs)

        await asyncio.to_thread(asyncio.run, abandon())
        assert await collect(engine.generate(PROMPTS[1], GREEDY))
        await until(lambda: idle(engine))

    run(scenario)


def test_what_is_closed_leaves_memory_without_the_garbage_collector(tiny_graph: Path, tiny_shape: ModelShape) -> None:
    """A server freezes what it has at its start, and so cycles would stay for ever."""

    async def live() -> weakref.ref[Any]:
        governor = Weather([]).governor(1 << 20)
        engine = AsyncEngine(Engine(tiny_graph, tiny_shape, EngineSettings(threads=1), governor=governor))
        async for _ in engine.generate([5, 6, 7], SamplingParams(max_tokens=3)):
            pass
        runner = weakref.ref(engine._engine.runner)
        await engine.close()
        return runner

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(live())() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("interval", [0.0, 0.2])
def test_weights_leave_memory_when_they_are_not_read(
    tiny_graph: Path, tiny_shape: ModelShape, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    """Between any two steps, or only once the engine is idle; answers are the same."""
    weights = tiny_graph.with_name("weights.bin")
    monkeypatch.setattr(file_pages, "INTERVAL", interval)

    def resident() -> int:
        return sum(mapping.resident for mapping in own_mappings() if mapping.name == str(weights.resolve()))

    async def answer(path: Path | None) -> tuple[list[int], int]:
        engine = AsyncEngine(Engine(tiny_graph, tiny_shape, SETTINGS), weights=path)
        try:
            tokens = await collect(engine.generate(PROMPTS[0], GREEDY))
            if path is not None:
                await until(lambda: not resident())
            return tokens, resident()
        finally:
            await engine.close()

    (plain, kept), (tidied, left) = asyncio.run(answer(None)), asyncio.run(answer(weights))
    assert (tidied, left) == (plain, 0)
    assert kept > 0


class TestPower:
    """An engine on a device that is hot, or on the last of its battery."""

    @staticmethod
    def governed(tiny_graph: Path, tiny_shape: ModelShape, power: Power) -> tuple[AsyncEngine, PowerGovernor]:
        governor = PowerGovernor(lambda: power)
        return AsyncEngine(Engine(tiny_graph, tiny_shape, SETTINGS), governor), governor

    def test_rests_are_taken_and_answers_stay_the_same(self, tiny_graph: Path, tiny_shape: ModelShape) -> None:
        rests: list[tuple[float, float]] = []  # how long each was to be at least, and was
        original = AsyncEngine._rest

        def rest(engine: AsyncEngine, worked: float) -> None:
            began = time.monotonic()
            original(engine, worked)
            assert engine._power is not None
            due = worked * (1 / engine._power.restraint.duty - 1)
            rests.append((due, time.monotonic() - began))

        async def main(power: Power) -> list[int]:
            engine, _ = self.governed(tiny_graph, tiny_shape, power)
            try:
                return await collect(engine.generate(PROMPTS[0], replace(GREEDY, max_tokens=200)))
            finally:
                await engine.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AsyncEngine, "_rest", rest)
            cool = asyncio.run(main(Power(celsius=40.0)))
            assert {due for due, _ in rests} == {0.0}
            rests.clear()
            hot = asyncio.run(main(Power(celsius=79.0, throttled=("under-voltage",))))
        assert hot == cool
        working = rests[:-1]  # after the last step nothing is left to rest from
        assert all(took >= min(due, MOST_REST) * 0.9 for due, took in working if due > 2 * LEAST_REST)
        assert sum(due for due, _ in working) > 0

    def test_fewer_run_at_once_until_it_is_charged(
        self, tiny_graph: Path, tiny_shape: ModelShape, tmp_path: Path
    ) -> None:
        battery = tmp_path / "class" / "power_supply" / "BAT0"
        battery.mkdir(parents=True)
        for name, word in {"type": "Battery", "status": "Discharging", "capacity": "9"}.items():
            (battery / name).write_text(f"{word}\n")
        looks = itertools.count(step=LOOK_SECONDS)
        governor = PowerGovernor(lambda: read_power(tmp_path), lambda: next(looks))
        inner = Engine(tiny_graph, tiny_shape, SETTINGS)
        running: list[int] = []
        original = inner.step

        def step() -> Outputs:
            outputs = original()
            running.append(len(inner.scheduler.running))
            return outputs

        inner.step = step

        async def main() -> list[list[int]]:
            engine = AsyncEngine(inner, governor)
            try:
                assert engine.stats().rows == 1
                asked = [engine.generate(prompt, GREEDY) for prompt in PROMPTS[:3]]
                answers = await asyncio.gather(*map(collect, asked))
                assert max(running) == 1
                (battery / "status").write_text("Charging\n")
                assert engine.stats().rows == SETTINGS.max_rows
                asked = [engine.generate(prompt, replace(ENDLESS, max_tokens=100)) for prompt in PROMPTS[:3]]
                await asyncio.gather(*map(collect, asked))
                assert max(running) > 1
                return answers
            finally:
                await engine.close()

        answers = asyncio.run(main())
        assert answers == [greedy(inner.runner, prompt, 12) for prompt in PROMPTS[:3]]

    def test_a_low_battery_is_for_those_who_wait(self, tiny_graph: Path, tiny_shape: ModelShape) -> None:
        async def main() -> None:
            low = Power(on_battery=True, battery_percent=15.0)
            engine, governor = self.governed(tiny_graph, tiny_shape, low)
            try:
                with pytest.raises(Overloaded, match="battery at 15 %: only what cannot wait") as error:
                    await collect(engine.generate(PROMPTS[0], GREEDY, terms=Terms(priority=Priority.BATCH)))
                assert error.value.retry_after == 60
                assert len(await collect(engine.generate(PROMPTS[0], GREEDY))) == 12
                assert governor.restraint.duty < 1
            finally:
                await engine.close()

        asyncio.run(main())

    def test_an_empty_battery_answers_nobody(self, tiny_graph: Path, tiny_shape: ModelShape) -> None:
        async def main() -> None:
            engine, _ = self.governed(tiny_graph, tiny_shape, Power(on_battery=True, battery_percent=1.0))
            try:
                with pytest.raises(Overloaded, match="battery at 1 %: nothing is answered"):
                    await collect(engine.generate(PROMPTS[0], GREEDY))
            finally:
                await engine.close()

        asyncio.run(main())
