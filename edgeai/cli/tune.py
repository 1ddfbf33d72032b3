"""`edgeai tune`: find the settings that suit this machine by measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, progress_display, say

if TYPE_CHECKING:
    from pathlib import Path

    from edgeai.tuning.profile import Profile


def tune(
    model: Annotated[
        str | None, typer.Argument(help="An installed model's name, or a package folder; by default the only one.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="About how long to measure.")] = 60.0,
    json: JsonFlag = False,
) -> None:
    """Measure which settings suit this machine, and keep them for later starts."""
    from edgeai.config import home_dir
    from edgeai.model import require_decoder
    from edgeai.server.loading import find_package
    from edgeai.tuning.profile import profile_path
    from edgeai.tuning.tune import tune as run_tune

    package = find_package(model)
    require_decoder(package.manifest)
    say(f"measuring {package.name} for about {seconds:.0f} s; let nothing else run meanwhile")
    with progress_display() as progress:
        profile = run_tune(package, home_dir(), seconds=seconds, progress=progress)
    path = profile_path(home_dir(), profile.cpu, profile.package)
    if json:
        emit(document(profile, path))
    else:
        show(profile, path)


def document(profile: Profile, path: Path) -> dict[str, Any]:
    """The profile as JSON, with what it comes to and where it is."""
    return {"path": str(path), "settings": profile.settings} | profile.model_dump(mode="json")


def show(profile: Profile, path: Path) -> None:
    """Each knob with its setting and why."""
    from edgeai.tuning.knobs import in_words

    for choice in profile.choices:
        typer.echo(f"{typer.style(f'{choice.knob:14}', bold=True)}{in_words(choice.setting):20}{choice.why}")
    typer.echo(f"kept in {path}; `edgeai doctor` explains it, --no-profile leaves it aside")
