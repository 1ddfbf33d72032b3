"""`edgeai update`: a new system for a board that was started from an image."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.bundle import reached
from edgeai.cli.output import JsonFlag, emit, progress_display, say
from edgeai.errors import InvalidInput

if TYPE_CHECKING:
    from edgeai.appliance.system_update import Device


def update(
    location: Annotated[str | None, typer.Argument(metavar="FILE|URL", help="A system's bundle.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say what runs and what will.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether this board would take it.")] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Take an older system, or the same once more.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Restart when it is installed.")] = False,
    json: JsonFlag = False,
) -> None:
    """Install a system into the slot that does not run; the next start tries it, and goes back if it is not healthy."""
    from edgeai.appliance import system_update
    from edgeai.bundle.keys import BOARD_FOLDER, TrustStore
    from edgeai.bundle.reader import Bundle

    device = system_update.open_device()
    if status or location is None:
        if not status:
            raise InvalidInput("name a bundle", "or --status, which tells what runs")
        _tell(status_of(device), as_json=json)
        return
    trust = TrustStore(BOARD_FOLDER)
    with reached(location) as remote, Bundle.open(location) as bundle, progress_display() as progress:
        release, signed_by = system_update.check(bundle, device, trust, downgrade=allow_downgrade)
        said = {"version": release.version, "signed_by": signed_by.name, "running": device.release.version}
        if check:
            _tell({**said, "size_bytes": bundle.head.manifest.size_bytes}, as_json=json)
            return
        done = system_update.install(bundle, device, trust, downgrade=allow_downgrade, delta=remote, progress=progress)
    counts = {"there_bytes": done.there, "reused_bytes": done.reused, "fetched_bytes": done.fetched}
    _tell({**said, "slot": done.slot, **counts, "received_bytes": done.received}, as_json=json)
    if restart:
        _restart()
    else:
        say(f"slot {done.slot} is tried at the next start")


def status_of(device: Device) -> dict[str, Any]:
    """Both slots and what will be started, for people and programs."""
    state = device.slots.status()
    found = {slot: device.installed(slot) for slot in device.partitions}
    return {
        "board": device.release.board,
        "running": state.running,
        "version": device.release.version,
        "good": state.good,
        "on_trial": state.on_trial,
        "trying": state.trying,
        "tries_left": state.tries_left,
        "failed": state.failed,
        "slots": {slot: release.version if release else None for slot, release in found.items()},
    }


def _tell(said: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(said)
        return
    for name, value in said.items():
        typer.echo(f"{name.replace('_', ' '):<15}{_words(value)}")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(entry)}" for name, entry in value.items())
    return {None: "-", True: "yes", False: "no"}.get(value, str(value))


def _restart() -> None:
    if subprocess.run(["systemctl", "reboot"], check=False).returncode:
        raise InvalidInput("the restart was refused", "restart as an administrator")
