"""Settings of the served engine: what the user asks for, what was tuned, and what the self-check makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeai.config import ServerSettings, home_dir
from edgeai.engine.engine import effective_context
from edgeai.model import model_shape
from edgeai.tuning.choose import read_situation
from edgeai.tuning.self_check import SelfCheck

if TYPE_CHECKING:
    from edgeai.engine.config import EngineSettings
    from edgeai.package.package import Package
    from edgeai.tuning.run_marker import RunMarker


def engine_settings(
    package: Package, settings: ServerSettings, say: Callable[[str], object], marker: RunMarker | None = None
) -> EngineSettings:
    """The settings to load the package with, after a self-check where one is due. Tells what is not as it was meant.

    Raises `TrialFailed` when the package works with no settings, and for what the user asks for and cannot have what
    `Package.graphs` and `effective_context` raise.
    """
    flags = {
        "threads": settings.threads,
        "max_rows": settings.max_rows,
        "max_queue": settings.max_queue,
        "max_queue_per_client": settings.max_queue_per_client,
        "latency_seconds": settings.latency_ms / 1000,
        "max_context": settings.max_context,
        "kv_budget_bytes": settings.kv_budget_bytes,
        "kv_type": settings.kv_type,
        "prompt_weights": None if settings.prompt_weights else False,
    }
    situation = read_situation(package, flags, home=home_dir(), use_profile=settings.profile)
    _check(package, situation.levels[0].settings)
    chosen = SelfCheck(situation, home_dir(), say).run(settings.check, marker)
    for note in chosen.notes:
        say(note)
    return chosen.settings


def _check(package: Package, settings: EngineSettings) -> None:
    """Mistakes are told at once: to a child process they would be settings that do not work."""
    package.graphs(settings.kv_type)
    effective_context(model_shape(package.manifest, settings.kv_type), settings)
