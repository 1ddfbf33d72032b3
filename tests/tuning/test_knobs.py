"""Candidates for made-up machines: what suits them, and never more than they have."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.device.topology import Core, Topology, read_topology
from edgeai.engine.config import EngineSettings
from edgeai.package.package import Package
from edgeai.tuning.knobs import KNOBS, LEAST, TUNABLE, Device, in_words, processor_sets, spins, thread_counts
from edgeai.tuning.limits import CONSERVATIVE, limited
from edgeai.tuning.profile import with_fields
from tests.fixtures.sysfs import write_sysfs

PI_5 = Topology(tuple(Core((cpu,), 1024) for cpu in range(4)), 2400)
BIG_LITTLE = Topology(tuple(Core((cpu,), 1024 if cpu >= 4 else 400) for cpu in range(8)), 2400)
LAPTOP = Topology((Core((0, 1), 4700), Core((2, 3), 4700), Core((4,), 3300), Core((5,), 3300)), 4700)
SERVER = Topology(tuple(Core((cpu, cpu + 32), 1) for cpu in range(32)), None)


def device(topology: Topology, package: Package, usable: float | None = None) -> Device:
    return Device(topology, len(topology.cpus) if usable is None else usable, package)


def counts(topology: Topology, package: Package, usable: float | None = None) -> list[int]:
    return [each["threads"] for each in thread_counts(device(topology, package, usable), EngineSettings())]


def test_thread_counts(package: Package) -> None:
    assert counts(PI_5, package) == [1, 2, 3, 4]
    assert counts(BIG_LITTLE, package) == [1, 2, 3, 4, 8]
    assert counts(LAPTOP, package) == [1, 2, 3, 4, 6]
    assert counts(SERVER, package) == [1, 2, 3, 4, 16]
    assert counts(PI_5, package, usable=1.5) == [1]
    assert counts(PI_5, package, usable=0.3) == [1]


def test_processor_sets(package: Package) -> None:
    def sets(topology: Topology, threads: int) -> list[tuple[int, ...]]:
        settings = EngineSettings(threads=threads)
        return [each["cpus"] for each in processor_sets(device(topology, package), settings)]

    assert sets(PI_5, 4) == [()]
    assert sets(BIG_LITTLE, 4) == [(), (4, 5, 6, 7)]
    assert sets(BIG_LITTLE, 8) == [()]
    assert sets(BIG_LITTLE, 1) == [()]
    assert sets(LAPTOP, 2) == [(), (0, 1, 2, 3), (0, 2, 4, 5), (0, 2)]
    assert sets(LAPTOP, 4) == [(), (0, 1, 2, 3), (0, 2, 4, 5)]


def test_one_thread_has_nothing_to_spin_for(package: Package) -> None:
    assert spins(device(PI_5, package), EngineSettings(threads=1)) == []
    spinning = [each["spin_us"] for each in spins(device(PI_5, package), EngineSettings(threads=2))]
    assert spinning == [None, 50, 0]


def test_the_table_is_whole() -> None:
    defaults = EngineSettings()
    assert len({knob.name for knob in KNOBS}) == len(KNOBS)
    assert all(hasattr(defaults, field) for field in TUNABLE)
    assert {*CONSERVATIVE} == TUNABLE
    assert {*LEAST} <= TUNABLE
    assert all(knob.what and knob.default and knob.measures for knob in KNOBS)


@pytest.mark.parametrize(
    ("setting", "words"), [({"cpus": (4, 5)}, "4,5"), ({"cpus": ()}, "any"), ({"spin_us": None}, "onnxruntime's own")]
)
def test_words(setting: dict[str, object], words: str) -> None:
    assert in_words(setting) == words


@given(st.data())
def test_candidates_never_exceed_the_machine(package: Package, data: st.DataObject) -> None:
    """Whatever cores there are, whichever of them may be used, and however little time of them."""
    cores = data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=12))
    numbers = iter(data.draw(st.permutations(range(sum(cores)))))
    groups = [[next(numbers) for _ in range(count)] for count in cores]
    allowed = data.draw(st.sets(st.integers(0, sum(cores) - 1), min_size=1))
    usable = data.draw(st.floats(0.05, len(allowed)))
    strengths = data.draw(st.lists(st.integers(1, 1024), min_size=sum(cores), max_size=sum(cores)))
    with tempfile.TemporaryDirectory() as folder:
        write_sysfs(Path(folder), groups, capacity=strengths.__getitem__)
        topology = read_topology(Path(folder), allowed)
    machine, settings = Device(topology, usable, package), EngineSettings()
    for knob in KNOBS:
        values = list(knob.values(machine, settings))
        for value in values:
            assert set(value) == set(knob.fields)
            together = {"threads": settings.threads} | value
            assert knob.name == "threads" or limited(together, allowed, usable) == together
            assert limited(value, allowed, usable) == value
        if values:
            settings = with_fields(settings, data.draw(st.sampled_from(values)))


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "threads": st.integers(1, 300),
        "cpus": st.lists(st.integers(0, 300), unique=True).map(tuple),
        "spin_us": st.none() | st.integers(0, 10**6),
    },
)


@given(SETTINGS, st.sets(st.integers(0, 70), min_size=1), st.floats(0.01, 70))
def test_whatever_a_profile_says_the_machine_has_the_last_word(
    values: dict[str, object], allowed: set[int], usable: float
) -> None:
    fitting = limited(values, allowed, usable)
    assert fitting.keys() == values.keys()
    assert 1 <= fitting.get("threads", 1) <= max(1, min(len(allowed), int(usable)))
    assert set(fitting.get("cpus", ())) <= allowed
    assert not fitting.get("cpus") or len(fitting["cpus"]) >= fitting.get("threads", 1)
    assert fitting.get("spin_us") == values.get("spin_us")
    assert limited(fitting, allowed, usable) == fitting
