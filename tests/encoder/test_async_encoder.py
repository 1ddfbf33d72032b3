"""Many clients at once: the same results, shared runs, nobody starved, and an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from edgeai.encoder import async_encoder
from edgeai.encoder.async_encoder import AsyncEncoder
from edgeai.encoder.encoder import Encoder
from edgeai.encoder.tokens import Tokens
from edgeai.errors import EdgeaiError, Overloaded
from tests.fixtures.encoders import words
from tests.fixtures.patience import PATIENCE


def encoded(encoder: Encoder, counts: Sequence[int]) -> list[Tokens]:
    return encoder.tokenizer.encode([words(count, count) for count in counts])


class Gated:
    """Lets runs through one at a time, and keeps a list of them."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[int] = []
        self.gate = threading.Semaphore(0)
        self.started = threading.Event()
        self._run = encoder.graph.run
        monkeypatch.setattr(encoder.graph, "run", self.run)

    def run(self, sequences: Sequence[Tokens]) -> np.ndarray:
        self.started.set()
        assert self.gate.acquire(timeout=PATIENCE)
        self.runs.append(len(sequences))
        return self._run(sequences)

    def open(self) -> None:
        for _ in range(1000):
            self.gate.release()


async def until_started(gated: Gated) -> None:
    assert await asyncio.to_thread(gated.started.wait, 20)


async def until_waiting(model: AsyncEncoder, count: int) -> None:
    while model.stats().waiting < count:
        await asyncio.sleep(0.005)


def test_the_same_results_for_every_client(embedder: Encoder) -> None:
    async def ask() -> list[np.ndarray]:
        model = AsyncEncoder(embedder)
        try:
            return await asyncio.gather(*(model.compute(encoded(embedder, counts)) for counts in requests))
        finally:
            await model.close()

    requests = [[3, 9, 3], [9], [20, 1, 3, 9], [], [5]]
    for counts, result in zip(requests, asyncio.run(ask()), strict=True):
        np.testing.assert_allclose(result, embedder.compute(encoded(embedder, counts)), atol=2e-6)
        assert result.shape == (len(counts), embedder.info.dimension)


def test_requests_that_wait_run_together(embedder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        model = AsyncEncoder(embedder)
        first = asyncio.create_task(model.compute(encoded(embedder, [7])))
        await until_started(gated)
        others = [asyncio.create_task(model.compute(encoded(embedder, [5]))) for _ in range(6)]
        await until_waiting(model, 7)
        gated.open()
        await asyncio.gather(first, *others)
        assert (model.stats().requests, model.stats().sequences, model.stats().tokens) == (7, 7, 9 + 6 * 7)
        assert model.stats().waiting == 0
        await model.close()

    gated = Gated(embedder, monkeypatch)
    asyncio.run(ask())
    assert gated.runs == [1, 6]


def test_a_short_request_does_not_wait_for_a_long_one(embedder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        model = AsyncEncoder(embedder)
        long = asyncio.create_task(model.compute(encoded(embedder, [20] * 50)))
        await until_started(gated)
        short = asyncio.create_task(model.compute(encoded(embedder, [6])))
        await until_waiting(model, 2)
        for _ in range(6):
            gated.gate.release()
        await asyncio.wait_for(short, PATIENCE)
        assert not long.done()
        gated.open()
        assert (await long).shape[0] == 50
        await model.close()

    monkeypatch.setattr(async_encoder, "ROUND_TOKENS", 44)
    gated = Gated(embedder, monkeypatch)
    asyncio.run(ask())


def test_a_client_that_leaves_costs_nothing_more(embedder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        model = AsyncEncoder(embedder)
        task = asyncio.create_task(model.compute(encoded(embedder, [20] * 50)))
        await until_started(gated)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gated.open()
        await model.compute(encoded(embedder, [4]))
        assert model.stats().sequences < 10
        await model.close()

    monkeypatch.setattr(async_encoder, "ROUND_TOKENS", 44)
    gated = Gated(embedder, monkeypatch)
    asyncio.run(ask())


def test_one_too_many_is_refused_and_closing_tells_who_waits(
    embedder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        model = AsyncEncoder(embedder, max_waiting=2)
        tasks = [asyncio.create_task(model.compute(encoded(embedder, [20] * 50))) for _ in range(2)]
        await until_started(gated)
        await until_waiting(model, 2)
        with pytest.raises(Overloaded, match="2 requests wait for tiny-embedder"):
            await model.compute(encoded(embedder, [4]))
        closing = asyncio.create_task(model.close())
        await asyncio.sleep(0.05)
        gated.open()
        await closing
        for task in tasks:
            with pytest.raises(Overloaded, match="was shut down"):
                await task
        with pytest.raises(Overloaded, match="was shut down"):
            await model.compute(encoded(embedder, [4]))

    monkeypatch.setattr(async_encoder, "ROUND_TOKENS", 44)
    gated = Gated(embedder, monkeypatch)
    asyncio.run(ask())


def test_a_run_that_fails_is_told_and_the_next_one_works(embedder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        model = AsyncEncoder(embedder)
        with monkeypatch.context() as broken:
            broken.setattr(embedder.graph, "run", fail)
            with pytest.raises(EdgeaiError, match="a run failed: no luck"):
                await model.compute(encoded(embedder, [4]))
        assert (await model.compute(encoded(embedder, [4]))).shape[0] == 1
        await model.close()

    def fail(_: object) -> np.ndarray:
        raise RuntimeError("no luck")

    asyncio.run(ask())
