"""What all commands share: one JSON document on standard output, errors and progress on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgeai.engine.config import EngineSettings
    from edgeai.model import Model
    from edgeai.package.package import Package
    from edgeai.progress import Progress

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AcceptLicence = Annotated[
    bool, typer.Option("--accept-licence", help="You have read the model's licence, which is not an open one.")
]


def _installed(incomplete: str) -> list[str]:
    """Names of installed models that begin so, for a shell."""
    from edgeai.config import home_dir
    from edgeai.package.store import Store

    return [name for name in Store(home_dir()).names() if name.startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(help="An installed model's name, or a package folder.", autocompletion=_installed)
]
UseProfile = Annotated[
    bool, typer.Option("--profile/--no-profile", help="Whether to use what `edgeai tune` found for this machine.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute; by default as tuned, or one per core.")]
_QUARTERS = 4


def emit(document: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def emit_error(kind: str, message: str, hint: str) -> None:
    """An error as the one JSON document of a command."""
    emit({"error": {"type": kind, "message": message, "hint": hint}})


def print_error(kind: str, message: str, hint: str) -> None:  # noqa: ARG001
    """An error for people."""
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)


def say(text: str) -> None:
    """Tell the person at the terminal; standard output stays free for results."""
    typer.echo(text, err=True)


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:,.0f} MB"


def open_package(model: str) -> Package:
    """The package that a user calls `model`, of several variants this CPU's. Raises `NotFound` or `PackageError`."""
    from edgeai.config import home_dir
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import open_variant
    from edgeai.package.store import Store

    return open_variant(Store(home_dir()), model, read_cpu())


def load_model(model: str, *, threads: int | None = None, profile: bool = True) -> Model:
    """The model that a user calls "base" or "base:adapter", with the settings that suit this machine.

    Raises as `open_package` and loading do.
    """
    from edgeai.config import home_dir
    from edgeai.device.profile import read_cpu
    from edgeai.device.variants import unsuited
    from edgeai.package.adapters import AdapterStore, split_name

    base, adapter = split_name(model)
    package = open_package(base)
    if warning := unsuited(package, read_cpu()):
        say(warning)
    installed = None if adapter is None else AdapterStore(home_dir()).get_for(package, adapter)
    from edgeai.device.affinity import pin_thread
    from edgeai.model import Model

    settings = settings_for(package, threads=threads, profile=profile)
    pin_thread(settings.cpus)
    loaded = Model.load(package, settings)
    return loaded if installed is None else loaded.with_adapter(installed)


def settings_for(package: Package, *, threads: int | None, profile: bool) -> EngineSettings:
    """Flags, then the profile, then defaults; tells why a profile is not used. Raises `InvalidInput` for encoders."""
    from edgeai.config import home_dir
    from edgeai.model import require_decoder
    from edgeai.tuning.choose import choose

    require_decoder(package.manifest)
    chosen = choose(package, {"threads": threads}, home=home_dir(), use_profile=profile)
    for note in chosen.notes:
        say(note)
    return chosen.settings


@contextlib.contextmanager
def progress_display() -> Iterator[Progress]:
    """A `Progress` that people can watch: bars on a terminal, lines elsewhere, both on standard error."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(step: str, done: int = 0, total: int = 0) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step.replace("[", "\\["), total=None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield update


class LineProgress:
    """Progress as lines: a step's name when it starts, then every quarter of it."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None:
        quarter = _QUARTERS * done // total if total else 0
        if quarter <= self._last.get(step, -1):
            return
        self._last[step] = quarter
        say(f"{step} ... {100 * quarter // _QUARTERS} %" if quarter else f"{step} ...")
