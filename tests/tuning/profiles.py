"""Made-up profiles for this machine."""

from __future__ import annotations

from typing import Any

from edgeai.package.package import Package
from edgeai.tuning.cpu_key import read_cpu_key
from edgeai.tuning.profile import Choice, Golden, Profile, identity


def make_profile(package: Package, *, golden: Golden | None = None, **settings: Any) -> Profile:
    """A profile that chose these fields, each by a knob of its own name."""
    return Profile(
        cpu=read_cpu_key(),
        package=identity(package),
        package_name=package.name,
        created="2026-01-02T03:04:05+00:00",
        seconds=60.0,
        choices=tuple(Choice(knob=name, setting={name: value}, why="measured") for name, value in settings.items()),
        golden=golden or Golden(tokens=(), tokens_per_second=0.0),
    )
