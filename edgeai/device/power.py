"""What the device says of heat, throttling, its battery and the energy it takes: read from sysfs, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeai.device.thermal import celsius, limit_celsius

SYS = Path("/sys")
# Bits of the Raspberry Pi firmware's get_throttled that speak of now, not of the time since the start.
_PI = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_PI_FILES = ("devices/platform/soc/soc:firmware/get_throttled", "devices/platform/soc/soc:firmware/throttled")


@dataclass(frozen=True, slots=True)
class Power:
    """One reading. None is what nothing on this device measures.

    `limit` is where the system itself begins to throttle; `throttled` says why the processor is held back now; `watts`
    is what a battery gives or a meter shows; `joules` is a meter's count since it was last reset.
    """

    celsius: float | None = None
    limit: float | None = None
    throttled: tuple[str, ...] = ()
    on_battery: bool = False
    battery_percent: float | None = None
    watts: float | None = None
    joules: float | None = None


def read_power(sys: Path = SYS) -> Power:
    """The device as it is now. Files that are missing, or that refuse to be read, are None."""
    supplies = [path for path in sorted(sys.glob("class/power_supply/*")) if _is_system(path)]
    batteries = [path for path in supplies if _word(path / "type") == "Battery"]
    mains = [_number(path / "online") for path in supplies if _word(path / "type") in ("Mains", "USB")]
    discharging = any(_word(path / "status") == "Discharging" for path in batteries)
    zones = sys / "class" / "thermal"
    return Power(
        celsius=celsius(zones),
        limit=limit_celsius(zones),
        throttled=_throttled(sys),
        on_battery=discharging and not any(mains),
        battery_percent=_percent(batteries),
        watts=_watts(sys, batteries, discharging=discharging),
        joules=_joules(sys),
    )


def _is_system(supply: Path) -> bool:
    """Whether the supply feeds the machine, not a mouse or a telephone beside it."""
    return _word(supply / "scope") != "Device"


def _percent(batteries: list[Path]) -> float | None:
    """Of all batteries together, as they report it: their sizes are not always known."""
    known = [value for path in batteries if (value := _number(path / "capacity")) is not None]
    return sum(known) / len(known) if known else None


def _watts(sys: Path, batteries: list[Path], *, discharging: bool) -> float | None:
    """Of a meter, else what the batteries give."""
    meters = [_number(path) for path in sorted(sys.glob("class/hwmon/hwmon*/power1_input"))]
    measured = [value * 1e-6 for value in meters if value is not None]
    if measured:
        return sum(measured)
    given = [_battery_watts(path) for path in batteries] if discharging else []
    known = [value for value in given if value is not None]
    return sum(known) if known else None


def _battery_watts(battery: Path) -> float | None:
    power = _number(battery / "power_now")
    if power is not None:
        return abs(power) * 1e-6
    current, voltage = _number(battery / "current_now"), _number(battery / "voltage_now")
    return None if current is None or voltage is None else abs(current) * voltage * 1e-12


def _joules(sys: Path) -> float | None:
    """Of the processor packages, by RAPL."""
    counts = [_number(path) for path in sorted(sys.glob("class/powercap/intel-rapl:?/energy_uj"))]
    known = [value * 1e-6 for value in counts if value is not None]
    return sum(known) if known else None


def _throttled(sys: Path) -> tuple[str, ...]:
    """What the firmware of a Raspberry Pi says; elsewhere, whether a cooling device has lowered the frequency."""
    for name in _PI_FILES:
        word = _word(sys / name)
        if word:
            bits = int(word, 16)
            return tuple(text for bit, text in _PI.items() if bits >> bit & 1)
    cooling = [path for path in sys.glob("class/thermal/cooling_device*") if "cpufreq" in _word(path / "type").lower()]
    return ("throttled",) if any(_number(path / "cur_state") for path in cooling) else ()


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # drivers refuse to be read when their device sleeps or is gone


def _number(path: Path) -> float | None:
    try:
        return float(_word(path))
    except ValueError:
        return None
