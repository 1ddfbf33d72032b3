"""Whether one more model fits beside others, and what each gets, on machines of given sizes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from edgeai.config import ServerSettings
from edgeai.device.budget import MIB, reserve_bytes
from edgeai.device.profile import Memory
from edgeai.package.package import Package
from edgeai.server.pool import room
from edgeai.server.pool.room import DeviceRoom

TOKEN = 46080  # bytes of KV cache, of the default model


@dataclass
class Engine:
    """An engine's books: what it holds is never more than its limit."""

    held: int
    settings: Any = field(default_factory=lambda: SimpleNamespace(kv_budget_bytes=600 * MIB))
    token_bytes: int = TOKEN
    limit: int = 600 * MIB

    def stats(self) -> Any:
        return SimpleNamespace(kv_used_bytes=self.held)

    async def limit_kv(self, kv_bytes: int) -> None:
        self.limit, self.held = kv_bytes, min(self.held, kv_bytes)


def model(held: int) -> Any:
    return SimpleNamespace(engine=Engine(held * MIB))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A control group of a gigabyte, with as many MiB left as a test says."""
    found = SimpleNamespace(left=900)
    read = lambda: Memory(total=8 << 30, available=found.left * MIB, limit=1 << 30)  # noqa: E731
    monkeypatch.setattr(room, "read_memory", read)
    return found


def test_a_model_fits_with_a_decent_conversation_or_not(machine: SimpleNamespace, smollm_package: Package) -> None:
    device = DeviceRoom(ServerSettings())
    assert device.fits(smollm_package)
    machine.left = 320  # enough to load it, but for a short conversation only
    assert not device.fits(smollm_package)
    assert DeviceRoom(ServerSettings(max_context=512)).fits(smollm_package)
    machine.left = 150
    assert not DeviceRoom(ServerSettings(max_context=512)).fits(smollm_package)


def test_caches_give_way_to_a_model_that_comes(machine: SimpleNamespace, smollm_package: Package) -> None:
    device, models = DeviceRoom(ServerSettings()), [model(300), model(10)]
    machine.left = 280
    assert not device.fits(smollm_package)
    asyncio.run(device.squeeze(models, smollm_package))
    machine.left += 310 - sum(each.engine.held for each in models) // MIB
    assert models[0].engine.held < 200 * MIB
    assert models[0].engine.limit == models[1].engine.limit >= 256 * TOKEN
    assert device.fits(smollm_package)


def test_what_is_left_is_shared_out_by_tokens(machine: SimpleNamespace) -> None:
    machine.left, models = 500, [model(100), model(0)]
    models[1].engine.token_bytes = 3 * TOKEN
    asyncio.run(DeviceRoom(ServerSettings()).share_out(models))
    first, second = (each.engine.limit for each in models)
    assert second == pytest.approx(3 * first, rel=0.01)
    reserve = reserve_bytes(Memory(8 << 30, 0, 1 << 30))
    assert first + second == pytest.approx(600 * MIB - reserve, rel=0.01)


def test_a_budget_that_was_asked_for_is_that_of_all(machine: SimpleNamespace) -> None:
    models = [model(0), model(0)]
    asyncio.run(DeviceRoom(ServerSettings(kv_budget_bytes=100 * MIB)).share_out(models))
    assert [each.engine.limit for each in models] == [50 * MIB, 50 * MIB]


def test_a_model_alone_has_what_was_planned_for_it(machine: SimpleNamespace) -> None:
    models = [model(0)]
    models[0].engine.limit = 1
    asyncio.run(DeviceRoom(ServerSettings()).share_out(models))
    assert models[0].engine.limit == 600 * MIB
