"""`edgeai adapter`: LoRA adapters that requests can choose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, open_package, say

if TYPE_CHECKING:
    from edgeai.package.adapters import AdapterStore, InstalledAdapter

app = typer.Typer(help="Install, list and remove LoRA adapters of installed models.", no_args_is_help=True)
AdapterArgument = Annotated[str, typer.Argument(metavar="BASE:NAME", help="The adapter as requests name it.")]


@app.command()
def add(
    base: Annotated[str, typer.Argument(help="The model that the adapter was trained on, installed or a folder.")],
    folder: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter: adapter_config.json and its weights.")],
    name: Annotated[str | None, typer.Option(help="What requests call it; by default the folder's name.")] = None,
    scale: Annotated[float, typer.Option(help="How much of it to add; 1 is as it was trained.")] = 1.0,
    json: JsonFlag = False,
) -> None:
    """Convert an adapter and install it; a server that runs finds it at once."""
    from edgeai.build.adapters import install
    from edgeai.build.target import name_from
    from edgeai.config import home_dir

    package = open_package(base)
    installed = install(package, folder, name or name_from(folder), home_dir(), scale)
    if json:
        emit(describe(installed))
        return
    size = installed.manifest.weights.size / 1e6
    say(f"rank {installed.manifest.rank}, {installed.manifest.parameters} values, {size:.1f} MB in memory")
    typer.echo(installed.model_name)


@app.command("list")
def list_adapters(json: JsonFlag = False) -> None:
    """Show what is installed, and whether its base is still the one it was made for."""
    from edgeai.errors import EdgeaiError

    store = _store()
    rows, damaged = [], {}
    for base in store.bases():
        for name in store.names(base):
            try:
                rows.append(describe(store.get(base, name)))
            except EdgeaiError as error:
                damaged[f"{base}:{name}"] = error.message
    if json:
        emit({"adapters": rows, "damaged": damaged})
        return
    for message in damaged.values():
        say(message)
    if not rows:
        say("no adapter is installed: `edgeai adapter add BASE FOLDER` installs one")
        return
    _print_table(rows)


@app.command()
def remove(adapter: AdapterArgument, json: JsonFlag = False) -> None:
    """Remove an installed adapter."""
    from edgeai.errors import InvalidInput
    from edgeai.package.adapters import split_name

    base, name = split_name(adapter)
    if name is None:
        raise InvalidInput(f"{adapter!r} does not name an adapter", "write BASE:NAME, as `edgeai adapter list` does")
    _store().remove(base, name)
    if json:
        emit({"removed": adapter})
    else:
        say(f"removed {adapter}")


def describe(adapter: InstalledAdapter) -> dict[str, Any]:
    """An adapter as JSON; `state` says whether it can be used with the base that is installed now."""
    manifest = adapter.manifest
    return {
        "model": adapter.model_name,
        "state": _state(adapter),
        "rank": manifest.rank,
        "parameters": manifest.parameters,
        "scale": manifest.scale,
        "size_bytes": manifest.weights.size,
        "digest": adapter.digest,
        "base_digest": manifest.base_digest,
        "origin": manifest.origin.model_dump(mode="json"),
    }


def _state(adapter: InstalledAdapter) -> str:
    from edgeai.config import home_dir
    from edgeai.errors import NotFound, PackageError
    from edgeai.package.store import Store

    try:
        base = Store(home_dir()).get(adapter.manifest.base)
    except NotFound:
        return "base not installed"
    except PackageError:
        return "base damaged"
    return "ready" if adapter.fits(base) else "for another build of its base"


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "rank", "size", "state", box=None)
    for row in rows:
        table.add_row(row["model"], str(row["rank"]), f"{row['size_bytes'] / 1e6:.1f} MB", row["state"])
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _store() -> AdapterStore:
    from edgeai.config import home_dir
    from edgeai.package.adapters import AdapterStore

    return AdapterStore(home_dir())
