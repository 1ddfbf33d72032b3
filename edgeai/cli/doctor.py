"""`edgeai doctor`: what this machine has, what will be used of it, and why."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.doctor_settings import print_settings, settings_of_models
from edgeai.cli.output import JsonFlag, emit, megabytes

if TYPE_CHECKING:
    from edgeai.device.profile import Cpu, Memory
    from edgeai.package.store import Store

PACKAGES = ("onnxruntime", "numpy", "tokenizers", "fastapi", "uvicorn", "onnx")


def doctor(
    check: Annotated[
        bool, typer.Option("--check", help="Also try every model's settings in a child process, as `serve` does.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Look at this machine: CPU, memory, disk, installed parts, and what will be used."""
    report = examine() | {"settings": settings_of_models(check=check)}
    if json:
        emit(report)
    else:
        _print(report)


def examine() -> dict[str, Any]:
    """Everything that `doctor` reports, as JSON."""
    import edgeai
    from edgeai.config import home_dir
    from edgeai.device.profile import disk_free, read_cpu, read_memory
    from edgeai.device.runtime_probe import probe_runtime
    from edgeai.package.store import Store

    cpu, memory, home = read_cpu(), read_memory(), home_dir()
    store = Store(home)
    return {
        "edgeai": edgeai.__version__,
        "python": sys.version.split()[0],
        "cpu": asdict(cpu),
        "memory": asdict(memory),
        "disk": {"home": str(home), "free": disk_free(home)},
        "installed": _installed(),
        "onnxruntime": probe_runtime(),
        "models": list(store.names()),
        "choices": choices(cpu, memory, store),
    }


def choices(cpu: Cpu, memory: Memory, store: Store) -> list[dict[str, str]]:
    """What will be used, and why."""
    from edgeai.cli.memory_report import memory_choices
    from edgeai.device.profile import kernels
    from edgeai.device.variants import suitable

    chosen, target = kernels(cpu), suitable(cpu)
    result = [
        _choice("kernels", chosen.name, chosen.why),
        _choice("packages", f"target {target.name}", target.why),
        _choice("threads", str(cpu.cores), "one per physical core; `serve --threads` changes it"),
        *(_choice(*row) for row in memory_choices(memory, store)),
        _choice("telemetry", "off", "nothing leaves the device; onnxruntime's own is switched off before it is loaded"),
    ]
    if cpu.usable < cpu.cores:
        result.append(_choice("warning", f"{cpu.usable:g} of {cpu.cores} cores", "this process may not use more"))
    return result


def _installed() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _choice(what: str, choice: str, why: str) -> dict[str, str]:
    return {"what": what, "choice": choice, "why": why}


def _print(report: dict[str, Any]) -> None:
    cpu, memory, disk = report["cpu"], report["memory"], report["disk"]
    limit = f", limited to {megabytes(memory['limit'])}" if memory["limit"] else ""
    rows = [
        ("edgeai", f"{report['edgeai']} on Python {report['python']}"),
        ("CPU", f"{cpu['model']} ({cpu['machine']}), {cpu['cores']} cores, {cpu['threads']} threads"),
        ("features", ", ".join(cpu["features"]) or "none that matter"),
        ("memory", f"{megabytes(memory['available'])} free of {megabytes(memory['total'])}{limit}"),
        ("disk", f"{megabytes(disk['free'])} free for {disk['home']}"),
        ("installed", ", ".join(f"{name} {version or 'missing'}" for name, version in report["installed"].items())),
        ("onnxruntime", report["onnxruntime"]["says"]),
        ("models", ", ".join(report["models"]) or "none: `edgeai build RECIPE` makes one"),
        *((entry["what"], f"{entry['choice']}: {entry['why']}") for entry in report["choices"]),
    ]
    for name, value in rows:
        typer.echo(f"{typer.style(f'{name:14}', bold=True)}{value}")
    print_settings(report["settings"])
