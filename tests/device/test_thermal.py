"""Temperatures, from trees as the kernel makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.device.thermal import celsius


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    return tmp_path / "thermal"


def zone(zones: Path, number: int, kind: str, temp: str) -> None:
    folder = zones / f"thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    (folder / "temp").write_text(temp + "\n")


def test_a_raspberry_pi(zones: Path) -> None:
    zone(zones, 0, "cpu-thermal", "48312")
    assert celsius(zones) == 48.312


def test_the_processor_goes_before_other_parts(zones: Path) -> None:
    for number, (kind, temp) in enumerate([("acpitz", "90000"), ("x86_pkg_temp", "61000"), ("iwlwifi_1", "70000")]):
        zone(zones, number, kind, temp)
    assert celsius(zones) == 61.0


def test_the_warmest_where_no_zone_is_the_processor(zones: Path) -> None:
    zone(zones, 0, "acpitz", "30000")
    zone(zones, 1, "pch_skylake", "44000")
    assert celsius(zones) == 44.0


def test_sensors_that_refuse_are_left_out(zones: Path) -> None:
    zone(zones, 0, "cpu-thermal", "")
    zone(zones, 1, "gpu", "41000")
    (zones / "thermal_zone2").mkdir()
    assert celsius(zones) == 41.0


def test_machines_without_sensors(zones: Path) -> None:
    assert celsius(zones) is None
