"""What `edgeai tune` turns, one entry for each knob: which values suit this device, and which work is measured.

Knobs are turned one after the other, in the order of `KNOBS`, each with those before it as they were chosen. To add
one, add its entry; the fields it sets are fields of `EngineSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgeai.device.topology import Topology
from edgeai.engine.config import EngineSettings
from edgeai.package.package import Package

Fields = dict[str, Any]  # values of fields of EngineSettings
Workload = Literal["decode", "long", "batch", "prefill", "rows", "edit"]  # `workloads.py` says what each does

MOST_THREADS = 16  # beyond, a decode step is spent in waiting for one another
MOST_PROMPT = 512  # tokens of a prompt that is measured
CHUNKS = (128, 64, 256, 512)  # tokens
SHORT_SPIN_US = 50  # a few operators; onnxruntime's own is a thousand times an operator


@dataclass(frozen=True, slots=True)
class Device:
    """What candidates depend on; `usable` is how many processors' worth of time this process may use, `prompt_tokens`
    how long a prompt can be measured in the time there is.
    """

    topology: Topology
    usable: float
    package: Package
    prompt_tokens: int = MOST_PROMPT


def nothing(_device: Device) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing to turn.

    `default` says why the default is what it is. `values` are the settings to be tried beside the present ones,
    simplest first; there may be none. `measures` is the work that decides: the geometric mean over all of it counts.
    `weight` is its share of the time, beside 1 of the others. `left_out` says what cannot be measured here, and why.
    """

    name: str
    what: str
    default: str
    fields: tuple[str, ...]
    values: Callable[[Device, EngineSettings], Sequence[Fields]]
    measures: tuple[Workload, ...]
    weight: int = 1
    left_out: Callable[[Device], str] = nothing


def in_words(setting: Fields) -> str:
    """The values of a setting, for people."""
    return ", ".join(_word(name, value) for name, value in setting.items())


def _word(name: str, value: object) -> str:
    match name, value:
        case "cpus", tuple() | list() as cpus:
            return ",".join(map(str, cpus)) or "any"
        case "spin_us", None:
            return "onnxruntime's own"
        case _, bool():
            return "used" if value else "not used"
        case _:
            return str(value)


def thread_counts(device: Device, _settings: EngineSettings) -> list[Fields]:
    """One thread, the strong cores, half of the cores, all cores, all processors; on small machines every number."""
    cores, strong = len(device.topology.cores), len(device.topology.strong)
    most = max(1, min(MOST_THREADS, int(device.usable), len(device.topology.cpus)))
    counts = {1, strong, (cores + 1) // 2, cores, most} | set(range(1, min(4, cores) + 1))
    return [{"threads": count} for count in sorted(counts) if count <= most]


def processor_sets(device: Device, settings: EngineSettings) -> list[Fields]:
    """Anywhere; on the strong cores where some are weak; on one processor of every core where cores have several.

    A single thread is left to the system, which moves it to the best core by itself.
    """
    topology, threads = device.topology, settings.threads
    strong = tuple(sorted(cpu for core in topology.strong for cpu in core.cpus))
    strong_firsts = tuple(core.cpus[0] for core in topology.strong)
    sets = [strong, topology.firsts, strong_firsts] if threads > 1 else []
    fitting = dict.fromkeys(cpus for cpus in sets if threads <= len(cpus) < len(topology.cpus))
    return [{"cpus": cpus} for cpus in ((), *fitting)]


def spins(_device: Device, settings: EngineSettings) -> list[Fields]:
    """As onnxruntime does, for a short time, and not at all. One thread has nothing to wait for."""
    return [{"spin_us": spin} for spin in (None, SHORT_SPIN_US, 0)] if settings.threads > 1 else []


def draft_lengths(_device: Device, _settings: EngineSettings) -> list[Fields]:
    return [{"draft_tokens": tokens} for tokens in (10, 0, 4, 16)]


def chunk_sizes(device: Device, settings: EngineSettings) -> list[Fields]:
    """Those that read the measured prompt in other pieces than the present one: longer ones all read it at once."""
    present = min(settings.chunk_tokens, device.prompt_tokens)
    return [{"chunk_tokens": tokens} for tokens in CHUNKS if tokens != present and tokens <= device.prompt_tokens]


def chunks_left_out(device: Device) -> str:
    longer = [tokens for tokens in sorted(CHUNKS) if tokens > device.prompt_tokens]
    if not longer:
        return ""
    names = ", ".join(map(str, longer))
    return (
        f"{names} not told apart: prompts of more than {device.prompt_tokens} tokens take too long here to be measured"
    )


def row_counts(_device: Device, _settings: EngineSettings) -> list[Fields]:
    return [{"max_rows": rows} for rows in (8, 4, 16)]


def kv_types(device: Device, _settings: EngineSettings) -> list[Fields]:
    return [{"kv_type": kind} for kind in device.package.kv_types]


def prompt_weights(device: Device, _settings: EngineSettings) -> list[Fields]:
    return [{"prompt_weights": used} for used in ((True, False) if device.package.prompt_weights else (True,))]


KNOBS: tuple[Knob, ...] = (
    Knob(
        "threads",
        "threads that compute",
        "one for each physical core",
        ("threads",),
        thread_counts,
        ("decode", "batch", "prefill"),
        weight=3,
    ),
    Knob(
        "affinity",
        "processors they stay on",
        "the system puts threads where there is room",
        ("cpus",),
        processor_sets,
        ("decode", "prefill"),
    ),
    Knob(
        "spinning",
        "microseconds they look for work before they sleep",
        "within a run the next operator is near",
        ("spin_us",),
        spins,
        ("decode", "batch"),
        weight=2,
    ),
    Knob("KV cache", "what it holds", "exact, and in every package", ("kv_type",), kv_types, ("long", "prefill")),
    Knob(
        "prompt weights",
        "whether int8 ones read prompts",
        "used where a package and memory have them",
        ("prompt_weights",),
        prompt_weights,
        ("prefill",),
    ),
    Knob(
        "chunk",
        "most prompt tokens in one step",
        "long enough to be efficient; shorter by itself while others write",
        ("chunk_tokens",),
        chunk_sizes,
        ("prefill",),
        left_out=chunks_left_out,
    ),
    Knob("rows", "requests that write at once", "a household's worth", ("max_rows",), row_counts, ("rows",)),
    Knob(
        "drafts",
        "most tokens drafted ahead",
        "fewer by themselves where drafts do not pay",
        ("draft_tokens",),
        draft_lengths,
        ("edit",),
    ),
)
# The least that makes sense where that is not 0; profiles with less are damaged.
LEAST = {"threads": 1, "chunk_tokens": 1, "max_rows": 1}
TUNABLE = frozenset(field for knob in KNOBS for field in knob.fields)
