"""Keeps an engine within the memory that is really there: reads it, restrains the scheduler, refuses what would be too
much. Touched by the engine's owner only; `state` may be read by anybody.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from edgeai.device.heap import trim_heap
from edgeai.engine.governor import CALM_SECONDS, IDLE_INTERVAL, LEVELS, REFUSING, Governor, Limits
from edgeai.engine.guard import RunGuard
from edgeai.engine.request import MemoryState
from edgeai.engine.runner import Runner
from edgeai.engine.scheduler import Scheduler
from edgeai.errors import Overloaded

RETRY_SECONDS = int(CALM_SECONDS) + 2  # until a level that has just risen may have ended
SHRINK_LEVEL = 2  # from here on the buffers of runs are given back too, for runs get smaller

log = logging.getLogger("edgeai.memory")


class MemoryControl:
    """Without a governor nothing is read and nothing is ever refused."""

    def __init__(self, governor: Governor | None, scheduler: Scheduler, runner: Runner, context_length: int) -> None:
        self._governor = governor
        self._scheduler = scheduler
        self._runner = runner
        budget = scheduler.settings.kv_budget_bytes
        self._normal = Limits(scheduler.rows, scheduler.chunks.most, context_length, budget, budget, budget)
        self._limits = self._normal
        self._guard = None if governor is None else RunGuard(self._relieve, runner.interrupt)

    def idle_seconds(self, *, watched: bool) -> float | None:
        """How long an idle engine may sleep before it should look again; None: until it is woken.

        `watched`: whether somebody waits for the kernel's word at `pressure`.
        """
        governor = self._governor
        if governor is None:
            return None
        if governor.level:
            return IDLE_INTERVAL
        told = watched and not governor.limited
        return None if told or not self._scheduler.budget.cached_bytes else governor.rest()

    @property
    def pressure(self) -> Path | None:
        """The kernel's file that an idle engine can wait at for bad news."""
        return None if self._governor is None else self._governor.pressure

    @property
    def state(self) -> MemoryState:
        if self._governor is None:
            return MemoryState()
        governor = self._governor
        return MemoryState(governor.level, LEVELS[governor.level], governor.available, governor.kills)

    def guard(self) -> AbstractContextManager[None]:
        """Around the runs of a step: they end with `Interrupted` where memory becomes too scarce meanwhile."""
        if self._guard is None or self._governor is None or not self._governor.watchful:
            return nullcontext()
        return self._guard

    def update(self, *, now: bool = False) -> None:
        """Read memory, if it is time to or has to be `now`, and restrain the scheduler accordingly."""
        governor = self._governor
        if governor is None or not (now or governor.due()):
            return
        before = governor.level
        if governor.observe():
            self._announce(before, governor)
        self._limits = governor.limits(self._normal, self._scheduler.committed_bytes)
        self._scheduler.restrain(self._limits)
        if governor.level > before:
            if governor.level >= SHRINK_LEVEL:
                self._runner.shrink()
            trim_heap()
        elif before and not governor.level:
            self._runner.recover()

    def ran(self) -> None:
        """Between a run, which may have taken long, and keeping what it computed: there is room in what is left now."""
        governor = self._governor
        if governor is not None and governor.due():
            self._scheduler.budget.tighten(self._scheduler.committed_bytes + governor.spare())

    def _relieve(self) -> bool:
        """Have the cache give up what is missing; whether that was not enough for the run to go on. The guard's."""
        governor = self._governor
        if governor is None or (spare := governor.spare()) >= 0:
            return False
        self._scheduler.budget.give_up(-spare)
        return governor.scarcer()

    def share(self, kv_bytes: int) -> None:
        """From now on the KV cache may have so many bytes; other models have the rest.

        A sequence that runs alone may still have all that was planned, as far as memory is really there: what was
        accepted gets on, one after the other.
        """
        share = min(kv_bytes, self._normal.alone_bytes)
        self._normal = replace(self._normal, kv_bytes=share, cache_bytes=share)
        governor, committed = self._governor, self._scheduler.committed_bytes
        self._limits = self._normal if governor is None else governor.limits(self._normal, committed)
        self._scheduler.restrain(self._limits)
        trim_heap()

    def close(self) -> None:
        """No run follows any more, and what was run may leave memory."""
        self._runner.close()
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def check(self, prompt_tokens: int) -> None:
        """Raises `Overloaded` when memory is too scarce for a new request with such a prompt."""
        self.update()
        level = self.state.level
        if level >= REFUSING or prompt_tokens > self._limits.prompt:
            what = "" if level >= REFUSING else f" for a prompt of {prompt_tokens} tokens"
            raise Overloaded(
                f"memory is scarce: there is no room{what} now",
                f"try again in {RETRY_SECONDS} seconds",
                retry_after=RETRY_SECONDS,
            )

    def _announce(self, before: int, governor: Governor) -> None:
        left = (governor.available or 0) >> 20
        if governor.level > before:
            log.warning("memory is scarce, %d MiB are left: %s", left, LEVELS[governor.level])
        else:
            log.info("memory recovers, %d MiB are left: %s", left, LEVELS[governor.level])
