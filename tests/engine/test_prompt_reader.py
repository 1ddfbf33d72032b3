"""Weights for prompts: what is read with them, when they are loaded, and that nothing depends on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeai.architectures.prompt_graph import write_prompt_graph
from edgeai.architectures.reference import EMBEDDINGS
from edgeai.architectures.registry import decoder_config
from edgeai.build.quantize.rows import nearest_rows
from edgeai.device.profile import Memory
from edgeai.engine import prompt_reader
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.engine import Engine
from edgeai.engine.governor import Governor, Limits
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.prompt_reader import LEAST_TOKENS, PromptGraph, PromptReader
from edgeai.engine.request import SamplingParams
from edgeai.onnx_session import OnnxSession
from edgeai.sources.weights import Tensor
from tests.fixtures.tiny import TinySource

PROMPT = [2 + 7 * number % 90 for number in range(90)]
SETTINGS = EngineSettings(threads=1, max_rows=2, chunk_tokens=32, draft_tokens=0)
PLENTY = Memory(total=8 << 30, available=8 << 30, limit=None)


@pytest.fixture(scope="module")
def prompt_graph(tiny_graph: Path) -> PromptGraph:
    source = TinySource()

    def load(name: str) -> Tensor:
        tensor = source.load(name)
        return nearest_rows(tensor) if len(tensor.shape) == 2 and name != EMBEDDINGS else tensor

    made = PromptGraph(tiny_graph.with_name("prompt.onnx"), tiny_graph.with_name("prompt.bin"))
    write_prompt_graph(tiny_graph, decoder_config(source.config), load, made.graph, made.weights)
    return made


@pytest.fixture
def runner(tiny_graph: Path, tiny_shape: ModelShape, prompt_graph: PromptGraph) -> Iterator[ModelRunner]:
    made = ModelRunner(tiny_graph, tiny_shape, SETTINGS, 512, prompt_graph=prompt_graph)
    assert made.complete()
    yield made
    made.close()


def test_all_but_the_last_token_of_a_prompt_is_read_with_them(runner: ModelRunner, tiny_graph: Path) -> None:
    assert runner.prompts is not None
    runner.prompts.read(1, PROMPT[:-1], 0)
    logits = runner.prefill(0, PROMPT, 0).copy()
    read = len(PROMPT) - 1
    assert np.array_equal(runner.arena.array[:, :, 0, :, :read], runner.arena.array[:, :, 1, :, :read])
    runner.fill(1, PROMPT[:-1], 0)
    assert np.array_equal(runner.decode([PROMPT[-1]] * 2, [read, read])[1].argmax(), logits.argmax())
    plain = ModelRunner(tiny_graph, runner.shape, SETTINGS, 512)
    assert not np.array_equal(plain.prefill(0, PROMPT, 0), logits)
    assert np.corrcoef(plain.prefill(0, PROMPT, 0), logits)[0, 1] > 0.99


def test_a_few_tokens_are_not(runner: ModelRunner, tiny_graph: Path) -> None:
    plain = ModelRunner(tiny_graph, runner.shape, SETTINGS, 512)
    few = PROMPT[:LEAST_TOKENS]
    assert np.array_equal(plain.prefill(0, few, 0), runner.prefill(0, few, 0))
    runner.fill(0, few[:-1], 0)
    plain.fill(0, few[:-1], 0)
    assert np.array_equal(plain.arena.array[..., : len(few) - 1, :], runner.arena.array[..., : len(few) - 1, :])


def answer(engine: Engine, name: str = "a") -> list[int]:
    engine.add(name, PROMPT, SamplingParams(max_tokens=12, temperature=0, ignore_eos=True))
    tokens = []
    while engine.has_work:
        tokens += [output.token_id for _, output in engine.step()]
    return tokens


def naive(runner: ModelRunner) -> list[int]:
    """The greedy answer without an engine: the prompt but for its last token read with them, then token by token."""
    assert runner.prompts is not None
    chunk = SETTINGS.chunk_tokens
    for start in range(0, len(PROMPT) - 1, chunk):
        runner.prompts.read(0, PROMPT[start : min(start + chunk, len(PROMPT) - 1)], start)
    tokens = [PROMPT[-1]]
    for length in range(len(PROMPT) - 1, len(PROMPT) + 11):
        tokens.append(int(runner.decode([tokens[-1]], [length])[0].argmax()))
    return tokens[1:]


def test_an_engine_answers_with_them_and_when_they_are_given_up(
    tiny_graph: Path, tiny_shape: ModelShape, prompt_graph: PromptGraph, runner: ModelRunner
) -> None:
    settings = replace(SETTINGS, prefix_cache=False)
    plain, expected = answer(Engine(tiny_graph, tiny_shape, settings)), naive(runner)
    assert plain != expected  # of a random model, whose tokens are all nearly as likely
    engine = Engine(tiny_graph, tiny_shape, settings, prompt_graph=prompt_graph)
    assert engine.runner.complete()
    read = counted(engine)
    assert answer(engine) == expected
    assert read == [32, 32, 25]
    engine.runner.shrink()
    assert answer(engine) == plain
    assert read == [32, 32, 25]
    engine.runner.recover()
    assert engine.runner.complete()
    assert answer(engine) == expected
    assert len(read) == 6
    engine.runner.close()


def counted(engine: Engine) -> list[int]:
    """Tokens of each run that the weights for prompts make from now on."""
    assert isinstance(engine.runner, ModelRunner)
    reader, read = engine.runner.prompts, list[int]()
    assert reader is not None
    run = reader.read

    def noted(slot: int, tokens: list[int], start: int) -> None:
        read.append(len(tokens))
        run(slot, tokens, start)

    reader.read = noted  # type: ignore[method-assign, assignment]
    return read


def test_settings_and_tight_memory_leave_them_out(
    tiny_graph: Path, tiny_shape: ModelShape, prompt_graph: PromptGraph
) -> None:
    for changed in (replace(SETTINGS, prompt_weights=False), replace(SETTINGS, tight=True)):
        runner = ModelRunner(tiny_graph, tiny_shape, changed, 512, prompt_graph=prompt_graph)
        assert runner.prompts is None
        assert runner.complete()


Reader = Callable[..., PromptReader]


@pytest.fixture
def make(runner: ModelRunner, prompt_graph: PromptGraph) -> Iterator[Reader]:
    made: list[PromptReader] = []

    def reader(memory: Memory = PLENTY, promised: int = 0, source: PromptGraph = prompt_graph) -> PromptReader:
        def load(graph: Path) -> OnnxSession:
            return OnnxSession(graph, threads=1)

        made.append(PromptReader(source, load, runner.arena, lambda: promised, lambda: memory))
        return made[-1]

    yield reader
    for each in made:
        each.close()


def test_they_are_loaded_some_time_after_the_model(make: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_reader, "DELAY", 0.05)
    reader = make()
    assert not reader.loaded
    reader._timer.join(30)
    assert reader.loaded
    assert reader.suits(LEAST_TOKENS)
    assert not reader.suits(LEAST_TOKENS - 1)


def test_what_was_promised_to_others_is_not_taken(make: Reader, prompt_graph: PromptGraph) -> None:
    assert not make(promised=8 << 30).wait()
    needed, reserve = prompt_graph.needed_bytes, 256 << 20
    assert make(replace(PLENTY, available=reserve + needed)).wait()
    assert not make(replace(PLENTY, available=reserve + needed - 1)).wait()


def test_a_damaged_graph_costs_nothing_but_speed(
    make: Reader, prompt_graph: PromptGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    assert not make(source=replace(prompt_graph, graph=tmp_path / "broken.onnx")).wait()
    assert "plain weights" in caplog.text


def test_what_is_given_up_stays_so_until_memory_recovers(make: Reader) -> None:
    reader = make()
    assert reader.wait()
    reader.give_up()
    assert not reader.wait()
    with pytest.raises(RuntimeError, match="suits"):
        reader.read(0, PROMPT, 0)
    reader.recover()
    assert reader.wait()


def test_nothing_is_loaded_after_the_end(make: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_reader, "DELAY", 0.05)
    reader = make()
    reader.close()
    reader._timer.join(30)
    assert not reader.loaded


def test_the_end_waits_for_what_is_being_loaded(runner: ModelRunner, prompt_graph: PromptGraph) -> None:
    loading, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def load(graph: Path) -> OnnxSession:
        loading.set()
        assert go_on.wait(30)
        return OnnxSession(graph, threads=1)

    def close() -> None:
        reader.close()
        closed.set()

    reader = PromptReader(prompt_graph, load, runner.arena, lambda: 0, lambda: PLENTY)
    threading.Thread(target=reader.wait).start()
    assert loading.wait(30)
    threading.Thread(target=close).start()
    assert not closed.wait(0.2)
    go_on.set()
    assert closed.wait(30)
    reader.recover()
    assert not reader.wait()


def test_giving_up_while_they_are_loaded(runner: ModelRunner, prompt_graph: PromptGraph) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load(graph: Path) -> OnnxSession:
        loading.set()
        assert go_on.wait(30)
        return OnnxSession(graph, threads=1)

    reader = PromptReader(prompt_graph, load, runner.arena, lambda: 0, lambda: PLENTY)
    waiting = threading.Thread(target=reader.wait)
    waiting.start()
    assert loading.wait(30)
    reader.give_up()
    go_on.set()
    waiting.join(30)
    assert not reader.loaded


class _Pressed(Governor):
    """Memory that is scarce for as long as the test says."""

    def __init__(self) -> None:
        self.scarce = False
        self.level = 0
        self.available = None
        self.kills = 0

    def due(self) -> bool:
        return True

    def observe(self) -> bool:
        before, self.level = self.level, 2 if self.scarce else 0
        return before != self.level

    def limits(self, normal: Limits, committed: int) -> Limits:
        return normal

    @property
    def watchful(self) -> bool:
        return False

    def spare(self) -> int:
        return 1 << 30


def test_scarce_memory_takes_them_and_plenty_brings_them_back(
    tiny_graph: Path, tiny_shape: ModelShape, prompt_graph: PromptGraph
) -> None:
    governor = _Pressed()
    engine = Engine(tiny_graph, tiny_shape, SETTINGS, prompt_graph=prompt_graph, governor=governor)
    assert isinstance(engine.runner, ModelRunner)
    reader = engine.runner.prompts
    assert reader is not None
    assert reader.wait()
    governor.scarce = True
    engine.memory.update(now=True)
    assert not reader.wait()
    governor.scarce = False
    engine.memory.update(now=True)
    assert reader.wait()
    engine.memory.close()
    assert answer(engine)
