"""`edgeai recipes`: the models that edgeai knows how to build, and which of them fit this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, say

if TYPE_CHECKING:
    from edgeai.device.fit import Fit, Needs
    from edgeai.recipe import Recipe

app = typer.Typer(help="Models that can be built, and which of them fit this machine.", invoke_without_command=True)
STYLES = {"yes": "green", "tight": "yellow", "slow": "yellow", "no": "red"}


@app.callback()
def list_recipes(context: typer.Context, json: JsonFlag = False) -> None:
    """List the recipes with licence, sizes, and whether they fit this machine."""
    if context.invoked_subcommand:
        return
    from edgeai.recipe import find_recipe, recipe_names

    described = [describe(find_recipe(name)) for name in recipe_names()]
    described.sort(key=lambda entry: (entry["parameters"] or 0, entry["name"]))
    if json:
        emit({"machine": _machine(), "recipes": described})
    else:
        _print_table(described)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    json: JsonFlag = False,
) -> None:
    """Show one recipe: sources, licence and what it allows, sizes, defaults."""
    from edgeai.recipe import find_recipe

    recipe = find_recipe(name)
    entry = describe(recipe)
    if json:
        emit(entry | {"recipe": recipe.model_dump(mode="json", by_alias=True)})
    else:
        _print_one(recipe, entry)


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON, held against this machine."""
    from edgeai.device.fit import needs

    need = needs(recipe.size, recipe.quantization) if recipe.size else None
    found = _fit(recipe)
    return {
        "name": recipe.name,
        "description": recipe.description,
        "languages": list(recipe.languages),
        "parameters": recipe.size.parameters if recipe.size else None,
        "context": recipe.size.context if recipe.size else None,
        "licence": _licence(recipe),
        "sources": [_source(entry) for entry in recipe.sources],
        "estimates": _estimates(need),
        "fits": {"verdict": found.verdict, "why": found.why},
    }


def _fit(recipe: Recipe) -> Fit:
    from edgeai.config import home_dir
    from edgeai.device.fit import fit
    from edgeai.device.profile import disk_free, read_cpu, read_memory

    return fit(recipe, read_cpu(), read_memory(), disk_free(home_dir()))


def _machine() -> dict[str, Any]:
    from edgeai.config import home_dir
    from edgeai.device.profile import disk_free, kernels, read_cpu, read_memory

    memory = read_memory()
    return {
        "memory": {"total": memory.total, "available": memory.available, "limit": memory.limit},
        "disk_free": disk_free(home_dir()),
        "kernels": kernels(read_cpu()).name,
    }


def _licence(recipe: Recipe) -> dict[str, Any] | None:
    from edgeai.licences import is_open

    if recipe.licence is None:
        return None
    return recipe.licence.model_dump() | {"open": is_open(recipe.licence.spdx)}


def _estimates(need: Needs | None) -> dict[str, int] | None:
    if need is None:
        return None
    return {"download_bytes": need.download, "package_bytes": need.package, "memory_bytes": need.memory}


def _source(entry: Any) -> dict[str, Any]:
    """A source, and for a branch the commit that its first download recorded."""
    from edgeai.recipe import PathRef, RepositoryRef

    document: dict[str, Any] = entry.model_dump(mode="json", exclude_defaults=True)
    if isinstance(entry, PathRef):
        return document | {"path": entry.path.name, "present": entry.path.exists()}
    if isinstance(entry, RepositoryRef) and not entry.pinned:
        return document | {"pinned": False, "recorded_commit": _recorded(entry)}
    return document | {"pinned": True}


def _recorded(entry: Any) -> str | None:
    """The commit that a branch was at its first download on this machine."""
    from edgeai.config import cache_dir
    from edgeai.progress import silent
    from edgeai.sources.repository import snapshots_for, wanted_of

    return snapshots_for(entry, cache_dir(), silent).locked_commit(wanted_of(entry))


def _print_table(described: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "parameters", "download", "package", "memory", "licence", "fits", box=None)
    for entry in described:
        sizes = entry["estimates"] or {}
        licence = entry["licence"] or {"spdx": "", "open": True}
        verdict = entry["fits"]["verdict"]
        table.add_row(
            entry["name"],
            f"{entry['parameters'] / 1e6:,.0f} M" if entry["parameters"] else "",
            *(
                f"{sizes[key] / 1e9:.2f} GB" if sizes else ""
                for key in ("download_bytes", "package_bytes", "memory_bytes")
            ),
            licence["spdx"] + ("" if licence["open"] else " *"),
            f"[{STYLES.get(verdict, 'white')}]{verdict}[/]",
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
    say("sizes are estimates, memory is that of one conversation of 2048 tokens; `edgeai recipes show NAME` says more")
    if any(entry["licence"] and not entry["licence"]["open"] for entry in described):
        say("* not an open licence: read it, then build with --accept-licence")


def _print_one(recipe: Recipe, entry: dict[str, Any]) -> None:
    sizes = entry["estimates"] or {}
    lines = [
        ("name", f"{recipe.name}: {recipe.description}"),
        ("languages", ", ".join(recipe.languages) or "not stated"),
        ("licence", _licence_line(entry["licence"])),
        ("allows", (entry["licence"] or {}).get("note", "")),
        *(("source", _source_line(source)) for source in entry["sources"]),
        *(
            (name, f"about {sizes[key] / 1e9:.2f} GB")
            for name, key in (("download", "download_bytes"), ("package", "package_bytes"), ("memory", "memory_bytes"))
            if sizes
        ),
        ("context", f"{entry['context']} tokens" if entry["context"] else ""),
        ("defaults", ", ".join(f"{k} {v}" for k, v in recipe.prompt.model_dump(exclude_none=True).items())),
        ("fits", f"{entry['fits']['verdict']}: {entry['fits']['why']}"),
    ]
    for name, value in lines:
        if value:
            typer.echo(f"{typer.style(f'{name:11}', bold=True)}{value}")


def _licence_line(licence: dict[str, Any] | None) -> str:
    if licence is None:
        return "not stated"
    kind = "open" if licence["open"] else "not open: needs --accept-licence"
    return f"{licence['spdx']} ({kind}) {licence['url']}".rstrip()


def _source_line(source: dict[str, Any]) -> str:
    match source["kind"]:
        case "path":
            return f"file {source['path']}, {'here' if source['present'] else 'not here'}"
        case "wheel":
            return f"wheel {source['requirement']}, pinned by digest"
        case kind:
            where = f"{kind} {source['repo']} at {source['revision']}"
            if source["pinned"]:
                return where
            recorded = source["recorded_commit"]
            return f"{where}, " + (
                f"which is commit {recorded} here" if recorded else "not pinned; the first download records the commit"
            )
