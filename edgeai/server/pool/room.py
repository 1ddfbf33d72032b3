"""The memory that the models of a server share: whether one more fits, and how much each may use for conversations.

Weights and buffers are what `memory_plan` counts for a model; what is left for KV caches is divided among the language
models in memory anew whenever one comes or goes, the same number of tokens for each. A budget is a limit, not memory in
use: a model that is idle leaves what it does not use to the others, as far as their own limits go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeai.config import ServerSettings
from edgeai.device.budget import Claim, MemoryPlan, reserve_bytes, shares
from edgeai.device.profile import Memory, read_memory
from edgeai.engine.config import EngineSettings
from edgeai.errors import OutOfMemory
from edgeai.memory_plan import plan_for, plan_for_encoder
from edgeai.model import AsyncModel, model_shape
from edgeai.package.package import Package

DECENT_CONTEXT = 2048  # tokens: for less a model is loaded only where nothing else can be unloaded


class DeviceRoom:
    """Memory of this machine, within its control group."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def fits(self, package: Package) -> bool:
        """Whether it could be loaded now, with room for a conversation of a decent length."""
        return self._fits(package, read_memory())

    def _fits(self, package: Package, memory: Memory) -> bool:
        try:
            if package.manifest.kind != "decoder":
                return plan_for_encoder(package.manifest, memory) > 0
            made, decent = self._plan(package, memory)
        except OutOfMemory:
            return False
        return made.kv_bytes >= decent.most

    def _plan(self, package: Package, memory: Memory) -> tuple[MemoryPlan, Claim]:
        """The plan for a language model, and what would be decent for it. Raises `OutOfMemory`."""
        settings, defaults = self._settings, EngineSettings()
        limits = EngineSettings(
            max_rows=settings.max_rows or defaults.max_rows,
            max_context=settings.max_context,
            kv_type=settings.kv_type or defaults.kv_type,
        )
        shape = model_shape(package.manifest, limits.kv_type)
        made = plan_for(package.manifest, shape, limits, memory, kv_bytes=settings.kv_budget_bytes)
        context = settings.max_context or min(shape.context_length, DECENT_CONTEXT)
        size = context * shape.token_bytes
        return made, Claim(shape.token_bytes, min(size, settings.kv_budget_bytes or size))

    async def squeeze(self, models: Sequence[AsyncModel], package: Package) -> None:
        """Have the models in memory give up what would be more than their share beside this one."""
        if not models or package.manifest.kind != "decoder":
            return
        memory = with_caches(read_memory(), models)
        try:
            made, decent = self._plan(package, memory)
        except OutOfMemory:
            return  # caches alone are not enough
        room = memory.available - made.reserve - made.load - made.scratch
        await _limit(models, shares(self._within(room, memory), [*map(_claim, models), decent])[:-1])

    async def share_out(self, models: Sequence[AsyncModel]) -> None:
        """Divide what there is among the models in memory. One alone has what was planned for it."""
        if len(models) == 1:
            await models[0].engine.limit_kv(models[0].engine.settings.kv_budget_bytes)
            return
        memory = with_caches(read_memory(), models)
        room = memory.available - reserve_bytes(memory)
        await _limit(models, shares(self._within(room, memory), [*map(_claim, models)]))

    def _within(self, room: int, memory: Memory) -> int:
        """What KV caches may have of `room`: other programs share a machine's own memory (`device.budget.plan`)."""
        room = room // 2 if memory.limit is None else room
        most = self._settings.kv_budget_bytes
        return room if most is None else min(room, most)


def with_caches(memory: Memory, models: Sequence[AsyncModel]) -> Memory:
    """`memory` as if nothing were in the KV caches of these models."""
    held = sum(model.engine.stats().kv_used_bytes for model in models)
    return replace(memory, available=memory.available + held)


async def _limit(models: Sequence[AsyncModel], budgets: Sequence[int]) -> None:
    for model, kv_bytes in zip(models, budgets, strict=True):
        await model.engine.limit_kv(kv_bytes)


def _claim(model: AsyncModel) -> Claim:
    return Claim(model.engine.token_bytes, model.engine.settings.kv_budget_bytes)
