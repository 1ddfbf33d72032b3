"""What `doctor` says about memory: how it would be divided for each installed model, and how pressure is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeai.cli.output import megabytes

if TYPE_CHECKING:
    from edgeai.device.profile import Memory
    from edgeai.package.store import Store

CHANGES = "`serve --context` and `--kv-budget` change it"


def memory_choices(memory: Memory, store: Store) -> list[tuple[str, str, str]]:
    """Rows of (what, choice, why): the reserve, each language model's plan, and what is watched."""
    from edgeai.device.budget import reserve_bytes

    why = "stays free for file pages, requests on their way and neighbours; below it the server restrains itself"
    return [
        ("reserve", megabytes(reserve_bytes(memory)), f"{why}{_swap(memory)}"),
        *(("memory", *plan) for plan in _plans(memory, store)),
        ("pressure", *_pressure()),
    ]


def _plans(memory: Memory, store: Store) -> list[tuple[str, str]]:
    from edgeai.engine.config import EngineSettings
    from edgeai.errors import OutOfMemory
    from edgeai.memory_plan import plan_for
    from edgeai.model import model_shape

    plans = []
    for package in store.list():
        if package.manifest.kind != "decoder":
            continue
        try:
            made = plan_for(package.manifest, model_shape(package.manifest), EngineSettings(), memory)
        except OutOfMemory as error:
            plans.append((f"{package.name} does not fit", str(error)))
        else:
            plans.append((package.name, f"{made.explain()}; {CHANGES}"))
    return plans


def _pressure() -> tuple[str, str]:
    """Whether the kernel tells of stalls before memory is at an end; without that it is looked at now and then."""
    from edgeai.device.control_group import memory_group
    from edgeai.device.pressure import PressureWatch, pressure_file

    group = memory_group()
    source = pressure_file(group)
    watch = PressureWatch(lambda: None, source)
    watch.close()
    if group is not None:
        return "looked at, at rest too", f"{group.folder} has a limit, at which the kernel kills without a word before"
    if watch.armed:
        return str(source), "the kernel wakes the server when tasks wait for memory"
    what = "stalls are not reported" if source is None else f"{source} cannot be waited for"
    return "looked at, at rest too", f"{what} on this system (kernel option psi=1)"


def _swap(memory: Memory) -> str:
    if not memory.swap:
        return ""
    kind = "compressed swap" if memory.compressed else "swap"
    return f"; {megabytes(memory.swap)} of {kind} are not counted on"
