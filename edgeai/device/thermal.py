"""How warm the device is."""

from __future__ import annotations

from pathlib import Path

# Names of the zone that is the processor itself, on boards and laptops; others measure batteries, radios or the case.
_PROCESSOR = ("x86_pkg_temp", "cpu", "soc")


def celsius(zones: Path = Path("/sys/class/thermal")) -> float | None:
    """Degrees of the processor's thermal zone, else of the warmest one; None where nothing measures."""
    readings = [(_text(zone / "type"), _degrees(zone / "temp")) for zone in sorted(zones.glob("thermal_zone*"))]
    known = [(kind, degrees) for kind, degrees in readings if degrees is not None]
    processor = [degrees for kind, degrees in known if any(name in kind for name in _PROCESSOR)]
    return max(processor or [degrees for _, degrees in known], default=None)


def limit_celsius(zones: Path = Path("/sys/class/thermal")) -> float | None:
    """Degrees at which the system begins to slow the processor down: the lowest passive trip point, or hot one."""
    points = [point for zone in zones.glob("thermal_zone*") for point in zone.glob("trip_point_*_type")]
    slowing = [point for point in points if _text(point) in ("passive", "hot")]
    known = [_degrees(point.with_name(point.name.replace("_type", "_temp"))) for point in slowing]
    return min((degrees for degrees in known if degrees is not None and degrees > 0), default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""  # sensors that sleep or are gone refuse to be read


def _degrees(path: Path) -> float | None:
    try:
        return int(_text(path)) / 1000  # the kernel gives thousandths
    except ValueError:
        return None
