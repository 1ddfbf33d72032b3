"""How warm the device is."""

from __future__ import annotations

from pathlib import Path

# Names of the zone that is the processor itself, on boards and laptops; others measure batteries, radios or the case.
_PROCESSOR = ("x86_pkg_temp", "cpu", "soc")


def celsius(zones: Path = Path("/sys/class/thermal")) -> float | None:
    """Degrees of the processor's thermal zone, else of the warmest one; None where nothing measures."""
    readings = [(_kind(zone), _degrees(zone)) for zone in sorted(zones.glob("thermal_zone*"))]
    known = [(kind, degrees) for kind, degrees in readings if degrees is not None]
    processor = [degrees for kind, degrees in known if any(name in kind for name in _PROCESSOR)]
    return max(processor or [degrees for _, degrees in known], default=None)


def _kind(zone: Path) -> str:
    try:
        return (zone / "type").read_text(encoding="ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""


def _degrees(zone: Path) -> float | None:
    try:
        return int((zone / "temp").read_text(encoding="ascii")) / 1000  # the kernel gives thousandths
    except (OSError, ValueError):
        return None  # sensors that sleep or are gone refuse to be read
