"""Cores out of sysfs trees of boards and laptops, and of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.device.affinity import allowed_cpus
from edgeai.device.topology import Core, parse_cpu_list, read_topology
from tests.fixtures.sysfs import write_sysfs


def test_big_and_little_cores(tmp_path: Path) -> None:
    """A board such as the Orange Pi 5: four weak cores, then four strong ones."""
    write_sysfs(tmp_path, [[cpu] for cpu in range(8)], capacity=lambda cpu: 1024 if cpu >= 4 else 414)
    topology = read_topology(tmp_path, range(8))
    assert len(topology.cores) == 8
    assert [core.cpus for core in topology.strong] == [(4,), (5,), (6,), (7,)]
    assert topology.max_mhz is None


def test_siblings_share_a_core(tmp_path: Path) -> None:
    write_sysfs(tmp_path, [[0, 2], [1, 3]], khz=lambda cpu: 2_700_000)
    topology = read_topology(tmp_path, range(4))
    assert topology.cores == (Core((0, 2), 2_700_000), Core((1, 3), 2_700_000))
    assert topology.strong == topology.cores
    assert (topology.firsts, topology.cpus, topology.max_mhz) == ((0, 1), (0, 1, 2, 3), 2700)


def test_a_hybrid_laptop_without_capacities_goes_by_clock_rates(tmp_path: Path) -> None:
    """Two performance cores with siblings, one of them favoured, and four efficiency cores."""
    clocks = {0: 4_700_000, 1: 4_700_000, 2: 4_500_000, 3: 4_500_000}
    write_sysfs(tmp_path, [[0, 1], [2, 3], [4], [5], [6], [7]], khz=lambda cpu: clocks.get(cpu, 3_300_000))
    topology = read_topology(tmp_path, range(8))
    assert [core.cpus for core in topology.strong] == [(0, 1), (2, 3)]
    assert topology.firsts == (0, 2, 4, 5, 6, 7)


def test_processors_that_may_not_be_used_are_not_there(tmp_path: Path) -> None:
    write_sysfs(tmp_path, [[0, 4], [1, 5], [2, 6], [3, 7]], capacity=lambda cpu: 1024 if cpu in (3, 7) else 400)
    topology = read_topology(tmp_path, [1, 2, 6])
    assert topology.cpus == (1, 2, 6)
    assert [core.cpus for core in topology.cores] == [(1,), (2, 6)]
    assert topology.strong == topology.cores


def test_an_older_kernel_names_siblings_otherwise(tmp_path: Path) -> None:
    write_sysfs(tmp_path, [[0, 1]], siblings="thread_siblings_list")
    assert read_topology(tmp_path, [0, 1]).cores == (Core((0, 1), 1),)


def test_without_sysfs_every_processor_is_a_core(tmp_path: Path) -> None:
    topology = read_topology(tmp_path, [0, 1])
    assert topology.strong == (Core((0,), 1), Core((1,), 1))


def test_this_machine() -> None:
    topology = read_topology()
    assert set(topology.cpus) == allowed_cpus()
    assert topology.strong


@pytest.mark.parametrize(("text", "cpus"), [("0\n", {0}), ("0-3,8", {0, 1, 2, 3, 8}), ("1,5-6", {1, 5, 6})])
def test_lists(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["", "x", "-"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        parse_cpu_list(text)


@given(st.dictionaries(st.integers(0, 15), st.integers(1, 4096), min_size=1), st.data())
def test_cores_are_a_partition_of_what_is_allowed(capacities: Mapping[int, int], data: st.DataObject) -> None:
    groups = [[cpu] for cpu in capacities]
    allowed = data.draw(st.sets(st.sampled_from(sorted(capacities)), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        write_sysfs(Path(folder), groups, capacity=capacities.__getitem__)
        topology = read_topology(Path(folder), allowed)
    assert sorted(cpu for core in topology.cores for cpu in core.cpus) == sorted(allowed)
    assert {core.capacity for core in topology.strong} >= {max(capacities[cpu] for cpu in allowed)}
