"""`edgeai warm`: prompts that a package brings along, already computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, emit, open_package, progress_display, say
from edgeai.errors import InvalidInput

if TYPE_CHECKING:
    from edgeai.package.package import Package


def warm(
    model: ModelArgument,
    prompt: Annotated[
        list[Path] | None,
        typer.Option(help="A file with a system prompt; several times for several. They replace others."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take all computed prompts out of the package.")] = False,
    json: JsonFlag = False,
) -> None:
    """Compute system prompts now and put the result into the package, so that a device need not."""
    if bool(prompt) == remove:
        raise InvalidInput("say which prompts to compute, or --remove", "`--prompt FILE`, several times if you like")
    package = warm_up(open_package(model), read(prompt or []))
    if json:
        emit({"package": str(package.path)} | describe(package))
        return
    say_warm(package)
    typer.echo(package.path)


def read(paths: list[Path]) -> list[str]:
    """The prompts in files. Raises `InvalidInput`."""
    from edgeai.warm import read_prompts

    return read_prompts(paths)


def warm_up(package: Package, prompts: list[str]) -> Package:
    """The package with these prompts computed, and no others. Raises as `edgeai.warm.warm`."""
    from edgeai.warm import warm

    with progress_display() as progress:
        return warm(package, prompts, progress=progress)


def describe(package: Package) -> dict[str, object]:
    """What a package has of computed prompts, as JSON."""
    entries = package.manifest.warm
    size = sum(package.manifest.files[blocks.file].size for blocks in entries)
    return {"warm": [blocks.model_dump(mode="json") for blocks in entries], "warm_bytes": size}


def say_warm(package: Package) -> None:
    """The same in words."""
    for blocks in package.manifest.warm:
        size = package.manifest.files[blocks.file].size / 1e6
        tokens = ", ".join(map(str, blocks.prompts))
        say(f"  computed prompts: {tokens} tokens, {size:.1f} MB ({blocks.kv_type} KV cache)")
