"""`edgeai tune`, whole: measure, hold the outcome against a fresh child's answer, keep a profile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgeai.device.profile import read_cpu
from edgeai.device.topology import read_topology
from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.model import default_settings
from edgeai.package.package import Package
from edgeai.progress import Progress, silent
from edgeai.tuning.bench import Bench
from edgeai.tuning.child import WORKER
from edgeai.tuning.choose import read_situation
from edgeai.tuning.cpu_key import read_cpu_key
from edgeai.tuning.knobs import Device
from edgeai.tuning.limits import CONSERVATIVE
from edgeai.tuning.probe import probe
from edgeai.tuning.profile import Choice, Golden, Profile, identity, with_fields, write_profile
from edgeai.tuning.search import Search


def tune(
    package: Package,
    home: Path,
    *,
    seconds: float = 60.0,
    worker: Sequence[str] = WORKER,
    progress: Progress = silent,
) -> Profile:
    """Measure for about `seconds` and write the profile that later starts use.

    Raises `TrialFailed` when the package runs with no settings at all, `InvalidInput` for what is no language model.
    """
    started = time.monotonic()
    cpu, topology = read_cpu(), read_topology()
    golden = read_situation(package, {}, home=home, use_profile=False).golden
    device = Device(topology, cpu.usable, package)
    settings, choices = _search(package, device, golden, seconds, worker, progress)
    answer = probe(package, settings, golden, worker=worker)
    if answer.wrong:
        raise TrialFailed(f"a fresh process answers wrongly with the settings that were found: {list(answer.tokens)}")
    profile = Profile(
        cpu=read_cpu_key(cpu, topology),
        package=identity(package),
        package_name=package.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        choices=choices,
        golden=Golden(tokens=answer.tokens, tokens_per_second=answer.tokens_per_second),
    )
    write_profile(home, profile)
    return profile


def _search(
    package: Package, device: Device, golden: Golden, seconds: float, worker: Sequence[str], progress: Progress
) -> tuple[EngineSettings, tuple[Choice, ...]]:
    """From the defaults on; where not even they work, from what is most likely to."""
    base = default_settings(package.manifest)
    with Bench(package, golden, worker=worker) as bench:
        try:
            return Search(bench, device, base, seconds, progress=progress).run()
        except TrialFailed as error:
            progress(f"the defaults do not work ({error.message}); once more from conservative settings")
    with Bench(package, golden, worker=worker) as bench:
        return Search(bench, device, with_fields(base, CONSERVATIVE), seconds, progress=progress).run()
