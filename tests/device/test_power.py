"""Power and heat, from trees as kernels make them on boards and laptops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeai.device.power import Power, read_power
from edgeai.device.power_governor import LEAST, LOOK_SECONDS, PowerGovernor, Restraint

PI = "devices/platform/soc/soc:firmware/get_throttled"


def tree(root: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def supply(root: Path, name: str, **files: Any) -> None:
    tree(root, **{f"class__power_supply__{name}__{key}": value for key, value in files.items()})


def test_a_machine_that_measures_nothing(tmp_path: Path) -> None:
    assert read_power(tmp_path) == Power()


def test_a_raspberry_pi_that_throttles(tmp_path: Path) -> None:
    zone = "class__thermal__thermal_zone0__"
    tree(tmp_path, **{f"{zone}type": "cpu-thermal", f"{zone}temp": 82150})
    tree(tmp_path, **{f"{zone}trip_point_0_type": "critical", f"{zone}trip_point_0_temp": 110000})
    tree(tmp_path, **{f"{zone}trip_point_1_type": "passive", f"{zone}trip_point_1_temp": 85000})
    (tmp_path / PI).parent.mkdir(parents=True)
    (tmp_path / PI).write_text("50005\n")  # now: under-voltage and throttled; both have been before
    power = read_power(tmp_path)
    assert (power.celsius, power.limit) == (82.15, 85.0)
    assert power.throttled == ("under-voltage", "throttled")
    (tmp_path / PI).write_text("50000\n")
    assert read_power(tmp_path).throttled == ()


def test_a_laptop_on_its_battery(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity=40, power_now=12_500_000)
    supply(tmp_path, "BAT1", type="Battery", status="Unknown", capacity=80)
    supply(tmp_path, "AC", type="Mains", online=0)
    power = read_power(tmp_path)
    assert (power.on_battery, power.battery_percent, power.watts) == (True, 60.0, 12.5)


def test_a_laptop_at_the_wall(tmp_path: Path) -> None:
    supply(
        tmp_path, "BAT0", type="Battery", status="Charging", capacity=5, current_now=1_000_000, voltage_now=12_000_000
    )
    supply(tmp_path, "AC", type="Mains", online=1)
    power = read_power(tmp_path)
    assert (power.on_battery, power.battery_percent, power.watts) == (False, 5.0, None)


def test_a_battery_that_tells_current_and_voltage(tmp_path: Path) -> None:
    supply(
        tmp_path,
        "battery",
        type="Battery",
        status="Discharging",
        capacity=50,
        current_now=-2_000_000,
        voltage_now=5_000_000,
    )
    assert read_power(tmp_path).watts == pytest.approx(10.0)


def test_a_mouse_is_no_battery(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp_0", type="Battery", scope="Device", status="Discharging", capacity=3)
    assert read_power(tmp_path) == Power()


def test_meters(tmp_path: Path) -> None:
    tree(tmp_path, class__hwmon__hwmon0__power1_input=3_300_000)
    for package in range(2):
        tree(tmp_path, **{f"class__powercap__intel-rapl:{package}__energy_uj": 5_000_000})
    assert (read_power(tmp_path).watts, read_power(tmp_path).joules) == (3.3, 10.0)


def test_a_lowered_frequency(tmp_path: Path) -> None:
    tree(tmp_path, class__thermal__cooling_device0__type="cpufreq-cpu0", class__thermal__cooling_device0__cur_state=0)
    assert read_power(tmp_path).throttled == ()
    tree(tmp_path, class__thermal__cooling_device0__cur_state=2)
    assert read_power(tmp_path).throttled == ("throttled",)


class Device:
    """A device that says what it is told to, and a clock that stands still."""

    def __init__(self, power: Power) -> None:
        self.power, self.now = power, 100.0
        self.governor = PowerGovernor(lambda: self.power, lambda: self.now)

    def look(self, times: int = 1) -> float:
        for _ in range(times):
            self.now += LOOK_SECONDS
            self.governor.look()
        return self.governor.restraint.duty


def test_a_cool_board_works_all_the_time() -> None:
    device = Device(Power(celsius=50.0))
    assert device.look(10) == 1.0
    assert device.governor.rest(1.0) == 0.0
    assert device.governor.restraint.why == ""


def test_a_hot_board_rests_and_comes_back() -> None:
    device = Device(Power(celsius=78.0))
    first, second = device.look(), device.look()
    assert 1 > first > second
    assert device.governor.restraint.why == "heat"
    assert device.governor.rest(1.0) == pytest.approx(1 / second - 1)
    assert device.look(100) == pytest.approx(LEAST)
    device.power = Power(celsius=75.5)  # neither near nor far: as it is
    assert device.look(5) == pytest.approx(LEAST)
    device.power = Power(celsius=60.0)
    assert device.look(100) == 1.0


def test_the_limit_is_the_devices_own() -> None:
    assert Device(Power(celsius=88.0, limit=100.0)).look() == 1.0
    assert Device(Power(celsius=68.0, limit=70.0)).look() < 1.0


def test_throttling_is_heat_whatever_the_sensor_says() -> None:
    assert Device(Power(celsius=60.0, throttled=("throttled",))).look() < 1.0


def test_a_weak_supply_gets_less_to_do() -> None:
    device = Device(Power(celsius=50.0, throttled=("under-voltage",)))
    assert device.look() == 0.5
    assert device.governor.restraint.why == "under-voltage"


@pytest.mark.parametrize(
    ("percent", "duty", "batch", "refusing"),
    [(50.0, 1.0, True, False), (20.0, 0.6, False, False), (9.0, 0.3, False, False), (2.0, 0.3, False, True)],
)
def test_the_last_of_a_battery(percent: float, duty: float, batch: bool, refusing: bool) -> None:
    device = Device(Power(on_battery=True, battery_percent=percent))
    device.look()
    restraint = device.governor.restraint
    assert (restraint.duty, restraint.batch, restraint.refusing) == (duty, batch, refusing)


def test_rows_follow_the_duty_and_one_is_left() -> None:
    assert [Restraint(duty).rows(8) for duty in (1.0, 0.8, 0.5, 0.3, 0.01)] == [8, 7, 4, 3, 1]
    assert Restraint(0.2).rows(1) == 1


def test_a_battery_that_is_charged_restrains_nobody() -> None:
    device = Device(Power(on_battery=False, battery_percent=2.0))
    assert (device.look(), device.governor.restraint.batch) == (1.0, True)


def test_the_device_is_not_asked_all_the_time() -> None:
    reads = []
    governor = PowerGovernor(lambda: reads.append(1) or Power(), lambda: 5.0)
    for _ in range(10):
        governor.look()
    assert len(reads) == 1


def test_energy_counts_while_there_is_work() -> None:
    device = Device(Power(joules=1000.0))
    device.look()
    device.power = Power(joules=1010.0)
    device.look()
    assert device.governor.joules == 10.0
    device.now += 3600  # at rest
    device.power = Power(joules=9000.0)
    device.look()
    assert device.governor.joules == 10.0
    device.power = Power(joules=4.0)  # the counter began again
    device.look()
    assert device.governor.joules == 14.0


def test_watts_become_joules() -> None:
    device = Device(Power(watts=5.0))
    device.look(3)
    assert device.governor.joules == pytest.approx(2 * 5.0 * LOOK_SECONDS)
