"""`edgeai models ...` and `edgeai verify`: what is installed, and whether it is intact."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, open_package, progress_display, say

if TYPE_CHECKING:
    from edgeai.package.package import Package
    from edgeai.package.store import Store

app = typer.Typer(help="List, find and remove installed models.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="An installed model's name.")]


def verify(
    package: Annotated[str, typer.Argument(help="A package folder, or an installed model's name.")],
    json: JsonFlag = False,
) -> None:
    """Read every file of a package and compare it with the manifest."""
    opened = open_package(package)
    with progress_display() as progress:
        opened.verify(progress)
    if json:
        emit(describe(opened) | {"ok": True})
    else:
        typer.echo(f"{opened.path}: {len(opened.manifest.files)} files, {opened.size_bytes / 1e6:.1f} MB, all intact")


@app.command("list")
def list_models(json: JsonFlag = False) -> None:
    """Show what is installed."""
    from edgeai.errors import PackageError

    store = _store()
    packages = store.list()
    damaged = {}
    for name in sorted(set(store.names()) - {package.path.name for package in packages}):
        try:
            store.get(name)
        except PackageError as error:
            damaged[name] = error.message
    if json:
        emit({"home": str(store.home), "models": [describe(package) for package in packages], "damaged": damaged})
        return
    for name, message in damaged.items():
        say(f"{name}: {message}")
    if not packages:
        say("nothing is installed yet: `edgeai build RECIPE` makes a package")
        return
    _print_table(packages)


@app.command()
def remove(name: NameArgument, json: JsonFlag = False) -> None:
    """Remove an installed model."""
    _store().remove(name)
    if json:
        emit({"removed": name})
    else:
        say(f"removed {name}")


@app.command()
def path(name: NameArgument) -> None:
    """Print a model's folder; the exit code says whether there is one."""
    typer.echo(_store().get(name).path)


@app.command()
def alias(
    name: Annotated[str | None, typer.Argument(help="Another name, such as gpt-4o-mini; none: show all.")] = None,
    model: Annotated[str | None, typer.Argument(help="The model it stands for, or BASE:ADAPTER.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the name.")] = False,
    json: JsonFlag = False,
) -> None:
    """Give models other names, for clients that know only those; a running server follows at once."""
    from edgeai.config import home_dir
    from edgeai.package.aliases import AliasFile

    file = AliasFile(home_dir())
    if name is not None and remove:
        file.remove(name)
    elif name is not None:
        file.set(name, model or "")
    if json:
        emit({"aliases": dict(file.all())})
    else:
        typer.echo("".join(f"{alias} -> {target}\n" for alias, target in sorted(file.all().items())), nl=False)


def describe(package: Package) -> dict[str, Any]:
    """A package as JSON."""
    manifest = package.manifest
    return {
        "name": package.name,
        "target": manifest.target,
        "kind": manifest.kind,
        "description": manifest.description,
        "package": str(package.path),
        "digest": package.digest,
        "size_bytes": package.size_bytes,
        "licence": manifest.licence.spdx,
        "model_type": manifest.architecture.model_type,
        "parameters": manifest.architecture.parameters,
        "context_length": manifest.architecture.context_length,
        "quantization": manifest.quantization.model_dump(mode="json"),
        "quality": manifest.measured.model_dump(mode="json"),
    }


def _print_table(packages: tuple[Package, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "parameters", "size", "bits/weight", "context", "licence", box=None)
    for package in packages:
        manifest = package.manifest
        table.add_row(
            package.path.name,
            manifest.kind,
            f"{manifest.architecture.parameters / 1e6:.0f} M",
            f"{package.size_bytes / 1e6:.1f} MB",
            f"{manifest.quantization.bits_per_weight:.1f}",
            str(manifest.architecture.context_length),
            manifest.licence.spdx,
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _store() -> Store:
    from edgeai.config import home_dir
    from edgeai.package.store import Store

    return Store(home_dir())
