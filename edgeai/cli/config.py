"""`edgeai config`: the settings in effect, where each came from, and whether a file is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, say
from edgeai.config import FOREVER

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings as TOML, instead of /etc/edgeai and $EDGEAI_HOME/edgeai.toml.")
]

app = typer.Typer(no_args_is_help=True, help="The server's settings: flags, EDGEAI_ variables, files, defaults.")


@app.command()
def show(config: ConfigFile = None, as_json: JsonFlag = False) -> None:
    """The settings that `edgeai serve` would use, as a configuration file, with where each came from."""
    from edgeai.settings.resolve import resolve

    found = resolve(config=config)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if as_json:
        emit({name: {"value": _plain(value), "origin": found.origins[name]} for name, value in found.values.items()})
        return
    for name, value in found.values.items():
        line = f"# {name} = (chosen when the server starts)" if value is None else f"{name} = {_toml(value)}"
        typer.echo(line if found.origins[name] == "default" else f"{line}  # {found.origins[name]}")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="A configuration file.")], as_json: JsonFlag = False) -> None:
    """Whether a file is right by itself; every wrong key and value is named with its line."""
    from edgeai.settings.resolve import merge
    from edgeai.settings.sources import from_file

    source = from_file(file)
    merge([source])
    if as_json:
        emit({"file": str(file), "settings": len(source.values)})
    else:
        typer.echo(f"{file} is right: {len(source.values)} settings")


def _toml(value: Any) -> str:
    """Strings, numbers, booleans and lists of them are written in TOML as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else _plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """JSON has no infinity, and -1 is another way to write it."""
    return -1 if value == FOREVER else value
