"""Whatever is batched, chunked, cached, preempted or cancelled, the engine gives the naive loop's tokens."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.engine.adapters import Adapter
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.governor import LEVELS
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.naive import greedy
from edgeai.engine.request import SamplingParams
from edgeai.engine.scheduler import Plan
from edgeai.engine.speculative import RunCosts
from edgeai.engine.terms import Priority, Terms
from edgeai.errors import DeadlineExceeded, Overloaded
from edgeai.onnx_session import Interrupted
from edgeai.package.block_store import BlockStore
from edgeai.package.manifest import ADAPTER_GRAPH_NAME, GRAPH_NAME, INT8_ADAPTER_GRAPH_NAME, INT8_GRAPH_NAME
from tests.fixtures.kv_stores import open_store
from tests.fixtures.patience import PATIENCE
from tests.fixtures.peft import tiny_adapter
from tests.fixtures.toy_grammar import ToyGrammar
from tests.fixtures.weather import Weather

SETTINGS = EngineSettings(threads=1, max_rows=4, block_tokens=8, chunk_tokens=24, kv_budget_bytes=1 << 20)
RESERVE_TOKENS = 256  # the memory that is to stay free, in tokens of KV cache
SHARE_STEPS = 5
PREFIXES = [tuple(range(2, 2 + n)) for n in (0, 9, 40)]  # shared beginnings, so that the prefix cache has work

ADAPTERS: dict[str, Adapter | None] = {
    "": None,
    "a": tiny_adapter("a", seed=1),
    "b": tiny_adapter("b", seed=2, rank=3),
    "c": tiny_adapter("c", seed=3, sites=[1, 6]),
}

prompts = st.tuples(st.sampled_from(PREFIXES), st.lists(st.integers(2, 95), min_size=1, max_size=70).map(tuple)).map(
    lambda parts: parts[0] + parts[1]
)


class Job(NamedTuple):
    """A request, when it joins, after how many steps it is cancelled, and by when it wants to be answered."""

    prompt: tuple[int, ...]
    max_tokens: int
    joins: int = 0
    cancelled_after: int | None = None
    adapter: str = ""
    grammar: ToyGrammar | None = None
    client: str = ""
    priority: Priority = Priority.INTERACTIVE
    allowed: int | None = None  # steps from when it joins

    @property
    def terms(self) -> Terms:
        """Time is counted in steps."""
        return Terms(self.client, self.priority, None if self.allowed is None else self.joins + self.allowed)


jobs = st.builds(
    Job,
    prompts,
    st.integers(1, 60),
    st.integers(0, 12),
    st.none() | st.integers(0, 30),
    st.sampled_from(sorted(ADAPTERS)),
    st.none() | st.builds(ToyGrammar, st.integers(0, 5), st.sampled_from([3, 60])),
    st.sampled_from(["x", "y"]),
    st.sampled_from(Priority),
    st.none() | st.integers(0, 100),
)


ADAPTER_GRAPHS = {GRAPH_NAME: ADAPTER_GRAPH_NAME, INT8_GRAPH_NAME: INT8_ADAPTER_GRAPH_NAME}


def adapter_graph(graph: Path) -> Path:
    return graph.with_name(ADAPTER_GRAPHS[graph.name])


@pytest.fixture(scope="module", params=["float32", "int8"])
def shape(tiny_shape: ModelShape, request: pytest.FixtureRequest) -> ModelShape:
    return replace(tiny_shape, kv_type=request.param)


@pytest.fixture(scope="module")
def graph(repetitive_graph: Path, shape: ModelShape) -> Path:
    return repetitive_graph if shape.kv_type == "float32" else repetitive_graph.with_name(INT8_GRAPH_NAME)


@pytest.fixture(scope="module")
def naive(graph: Path, shape: ModelShape):
    """The loop on the same graph: an int8 cache rounds keys and values the same way whoever reads them."""
    runner = ModelRunner(graph, shape, SETTINGS, 512, adapter_graph(graph))
    runner.enable_adapters()

    @cache
    def run(
        prompt: tuple[int, ...], max_tokens: int, adapter: str = "", grammar: ToyGrammar | None = None
    ) -> list[int]:
        return greedy(runner, prompt, max_tokens, ADAPTERS[adapter], grammar)

    return run


def engine_with(
    graph: Path,
    shape: ModelShape,
    tokens: int,
    *,
    cache: bool,
    drafts: int = 0,
    store: BlockStore | None = None,
    spells: Iterable[tuple[int, int]] | None = None,
) -> Engine:
    budget = tokens * shape.token_bytes
    limits = replace(SETTINGS, kv_budget_bytes=budget, prefix_cache=cache, draft_tokens=drafts, max_adapters=2)
    reserve = RESERVE_TOKENS * shape.token_bytes
    weather = None if spells is None else Weather((eighths * reserve // 8, lasting) for eighths, lasting in spells)
    governor = None if weather is None else weather.governor(reserve)
    return Engine(graph, shape, limits, adapter_graph=adapter_graph(graph), store=store, governor=governor)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    schedule=st.lists(jobs, min_size=1, max_size=7),
    budget=st.sampled_from([192, 320, 2048]),
    cache=st.booleans(),
    drafts=st.sampled_from([0, 3, 10]),
    damaged=st.none() | st.sets(st.integers(0, 20)),
    spells=st.none() | st.lists(st.tuples(st.integers(0, 10), st.integers(1, 12)), max_size=8),
    shares=st.lists(st.integers(0, 8), max_size=6),
    interrupted=st.sets(st.integers(0, 40), max_size=4),
)
def test_equals_the_naive_loop(
    naive, graph: Path, shape: ModelShape, schedule, budget, cache, drafts, damaged, spells, shares, interrupted
) -> None:
    """Requests of two clients and two classes join at given steps, with one adapter or another, under a grammar or
    free; some are cancelled, some have deadlines; a small budget forces preemption and eviction. With `damaged`, all of
    it happens again after a restart, over a store with some blocks damaged. With `spells` (eighths of the reserve that
    are left, and for how long) memory becomes scarce meanwhile, now and then; and every few steps other models leave it
    another one of `shares` (eighths of its budget). The `interrupted` runs come to nothing and are made again.

    The model soon writes in circles, so that drafts are right often; where it leaves them, they are wrong.
    """

    def live(store: BlockStore | None) -> None:
        engine = engine_with(graph, shape, budget, cache=cache, drafts=drafts, store=store, spells=spells)
        interrupt(engine, interrupted)
        check(naive, schedule, run_schedule(engine, schedule, shares))

    if damaged is None:
        live(None)
        return
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with closing(open_store(Path(folder), shape, SETTINGS, disk_bytes=1 << 20)) as store:
                live(store)
                store.flush()
            for number, path in enumerate(sorted(Path(folder).glob("*.kv"))):
                if number in damaged:
                    path.write_bytes(path.read_bytes()[:-1] + b"?")


def interrupt(engine: Engine, numbers: Collection[int]) -> None:
    """Have the runs of these numbers end too early for their results, but not for what they wrote to the KV cache."""
    runs = itertools.count()

    def interrupted(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = run(*arguments)
            if next(runs) in numbers:
                raise Interrupted
            return result

        return call

    for name in ("prefill", "decode", "verify"):
        setattr(engine.runner, name, interrupted(getattr(engine.runner, name)))


def run_schedule(engine: Engine, schedule, shares: Sequence[int] = ()) -> dict[str, list[int]]:
    """Tokens of each request. One that is refused for memory comes back until it is cancelled or late."""
    outputs: dict[str, list[int]] = {str(i): [] for i in range(len(schedule))}
    coming, running = set(range(len(schedule))), set()
    step = 0
    engine.admission._clock = lambda: float(step)
    while running or coming:
        if shares and step % SHARE_STEPS == 0:
            engine.memory.share(engine.settings.kv_budget_bytes * shares[step // SHARE_STEPS % len(shares)] // 8)
        for i, job in enumerate(schedule):
            if i in coming and job.joins <= step:
                params = SamplingParams(max_tokens=job.max_tokens, temperature=0, grammar=job.grammar)
                try:
                    engine.add(str(i), job.prompt, params, ADAPTERS[job.adapter], job.terms)
                    running.add(i)
                    coming.remove(i)
                except Overloaded:
                    pass
                except DeadlineExceeded:
                    coming.remove(i)
            if job.cancelled_after is not None and job.joins + job.cancelled_after == step:
                engine.cancel(str(i))
                coming.discard(i)
                running.discard(i)
        news = engine.step()
        for request_id in engine.failures:
            assert not outputs[request_id], "what was begun is brought to an end"
            running.remove(int(request_id))
        engine.failures.clear()
        for request_id, output in news:
            outputs[request_id].append(output.token_id)
            if output.finish_reason is not None:
                running.remove(int(request_id))
        assert engine.has_work == bool(running)
        engine.scheduler.check_integrity()
        step += 1
    assert not engine.runner.arena.occupied
    return outputs


def check(naive, schedule, outputs: dict[str, list[int]]) -> None:
    for i, job in enumerate(schedule):
        expected = naive(job.prompt, job.max_tokens, job.adapter, job.grammar)
        if job.cancelled_after is None and job.allowed is None:
            assert outputs[str(i)] == expected
        else:
            assert outputs[str(i)] == expected[: len(outputs[str(i)])]


def long_answers(naive, count: int, tokens: int) -> list[tuple[int, ...]]:
    """Prompts that are answered with so many tokens."""
    prompts = (tuple(range(first, first + length)) for length in range(60, 0, -5) for first in range(2, 35, 3))
    found = list(itertools.islice((prompt for prompt in prompts if len(naive(prompt, tokens)) == tokens), count))
    assert len(found) == count
    return found


def test_preemption_and_eviction_really_happen(naive, graph: Path, shape: ModelShape) -> None:
    """The property would be hollow if a small budget never forced anything out."""
    engine = engine_with(graph, shape, 320, cache=True)
    jobs = [tuple(range(2 + i, 60 + i)) for i in range(4)]
    for i, prompt in enumerate(jobs):
        engine.add(str(i), prompt, SamplingParams(max_tokens=150, temperature=0, ignore_eos=True))
    outputs: dict[str, list[int]] = {str(i): [] for i in range(4)}
    while engine.has_work:
        for request_id, output in engine.step():
            outputs[request_id].append(output.token_id)
        engine.scheduler.check_integrity()
    assert engine.stats().preemptions > 0
    for i, prompt in enumerate(jobs):
        ended = naive(prompt, 150)
        assert outputs[str(i)][: len(ended)] == ended
        assert len(outputs[str(i)]) == 150


def be_quick(engine: Engine, store: BlockStore) -> None:
    """Have the disk do in no step's time what it is asked to, so that steps do not depend on this machine."""
    schedule = engine.scheduler.schedule

    def scheduled() -> Plan:
        store.flush()
        engine.scheduler._reuse.wait(PATIENCE)
        return schedule()

    engine.scheduler.schedule = scheduled  # type: ignore[method-assign]


class EqualCosts(RunCosts):
    """Runs cost the same, however long: drafts are as long as they may be, whatever this machine is doing."""

    def seconds(self, positions: int) -> float:
        return 1.0


def test_all_of_it_really_happens_together(naive, graph: Path, shape: ModelShape, tmp_path: Path) -> None:
    """Rows come from the disk, are preempted, and go on by drafts, right and wrong ones; answers stay the same."""
    schedule = [Job(prompt, 100) for prompt in long_answers(naive, 4, 100)]
    for restarted in (False, True):
        with closing(open_store(tmp_path, shape, SETTINGS, disk_bytes=1 << 20)) as store:
            engine = engine_with(graph, shape, 256, cache=True, drafts=10, store=store)
            engine.drafts.costs = EqualCosts()
            be_quick(engine, store)
            interrupt(engine, {3, 11, 12, 40})
            check(naive, schedule, run_schedule(engine, schedule))
            store.flush()
            stats = engine.stats()
            assert stats.preemptions > 0
            assert 0 < stats.accepted_tokens < stats.drafted_tokens
            assert store.stats().loaded > 0 or not restarted


def test_classes_and_deadlines_really_happen(naive, graph: Path, shape: ModelShape) -> None:
    """The property would be hollow if nobody ever gave way, or was late."""
    engine = engine_with(graph, shape, 2048, cache=True)
    batch = [Job(prompt, 60, client="x", priority=Priority.BATCH) for prompt in long_answers(naive, 4, 60)]
    urgent = [Job(tuple(range(50, 60 + i)), 20, joins=30 + i, client="y") for i in range(3)]
    late = [Job((5, 6, 7), 50, joins=35, allowed=12), Job((5, 6, 8), 50, joins=30, client="x", allowed=0)]
    schedule = [*batch, *urgent, *late]
    outputs = run_schedule(engine, schedule)
    check(naive, schedule, outputs)
    assert engine.stats().preemptions >= 3
    assert 0 < len(outputs["7"]) < 50
    assert not outputs["8"]
    assert engine.stats().expired == 2


def test_scarcity_really_restrains(naive, graph: Path, shape: ModelShape) -> None:
    """The property would be hollow if memory that comes and goes changed nothing."""
    spells = [(800, 24), (3, 3), (2, 3), (1, 3), (0, 5)]
    engine = engine_with(graph, shape, 2048, cache=True, spells=spells)
    schedule = [Job(tuple(range(2 + i, 60 + i)), 60, joins) for i, joins in enumerate((0, 0, 0, 0, 24, 40))]
    rows, cached = [0] * len(LEVELS), [0] * len(LEVELS)  # the most at each level
    step = engine.step

    def watched():
        outputs, level = step(), engine.stats().memory.level
        rows[level] = max(rows[level], len(engine.scheduler.running))
        cached[level] = max(cached[level], engine.cache.used_bytes)
        return outputs

    engine.step = watched  # type: ignore[method-assign]
    check(naive, schedule, run_schedule(engine, schedule))
    assert engine.stats().preemptions > 0
    assert rows[0] > 2
    assert rows[2] <= 2
    assert rows[3] <= 1
    assert rows[4] <= 1
    assert cached[0]
    assert not any(cached[2:])


def test_sampled_text_depends_on_its_seed_alone(graph: Path, shape: ModelShape) -> None:
    """A seeded request gives the same tokens alone, in a crowd, when it is preempted, and whatever is drafted."""
    params = SamplingParams(max_tokens=100, temperature=1.3, top_p=0.95, seed=7, ignore_eos=True)
    prompt = tuple(range(5, 45))
    results = []
    for budget, crowd, drafts in ((2048, 0, 0), (2048, 3, 0), (320, 3, 0), (2048, 0, 8), (320, 3, 8)):
        engine = engine_with(graph, shape, budget, cache=False, drafts=drafts)
        for i in range(crowd):
            engine.add(f"crowd {i}", prompt[i:], replace(params, seed=i))
        engine.add("mine", prompt, params)
        tokens = []
        while engine.has_work:
            tokens += [output.token_id for request_id, output in engine.step() if request_id == "mine"]
        results.append(tokens)
    assert all(tokens == results[0] for tokens in results)
    assert len(results[0]) == 100


def test_drafts_are_really_accepted_and_refused(naive, graph: Path, shape: ModelShape) -> None:
    """The property would be hollow if nothing was ever drafted, or every draft was right, in a batch of ragged rows."""
    engine = engine_with(graph, shape, 2048, cache=False, drafts=10)
    jobs = [tuple(range(2 + i, 40 + 3 * i)) for i in range(4)]
    for i, prompt in enumerate(jobs):
        engine.add(str(i), prompt, SamplingParams(max_tokens=100 + i, temperature=0, ignore_eos=True))
    outputs: dict[str, list[int]] = {str(i): [] for i in range(4)}
    steps = 0
    while engine.has_work:
        steps += 1
        for request_id, output in engine.step():
            outputs[request_id].append(output.token_id)
        engine.scheduler.check_integrity()
    stats = engine.stats()
    assert 0 < stats.accepted_tokens < stats.drafted_tokens
    assert stats.generated_tokens == sum(map(len, outputs.values())) == 406
    assert steps < 103 + len(jobs)  # fewer than the longest answer takes alone, and a step for each prompt
    for i, prompt in enumerate(jobs):
        ended = naive(prompt, 100 + i)
        assert outputs[str(i)][: len(ended)] == ended
