"""What `edgeai doctor` says of each model's settings, and its self-check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from edgeai.cli.output import say

if TYPE_CHECKING:
    from edgeai.package.package import Package


def settings_of_models(*, check: bool) -> list[dict[str, Any]]:
    """The settings of every installed language model, explained; with `check` what a self-check sees of them now."""
    from edgeai.config import home_dir
    from edgeai.package.store import Store

    packages = Store(home_dir()).list()
    return [_settings_of(package, check=check) for package in packages if package.manifest.kind == "decoder"]


def print_settings(models: Sequence[dict[str, Any]]) -> None:
    """For people: one line for each knob."""
    for model in models:
        typer.echo(typer.style(f"settings of {model['model']}", bold=True))
        for each in model["settings"]:
            typer.echo(f"  {each['knob']:12}{each['value']:20}{each['source']:10}{each['why']}")
        for note in model["notes"]:
            typer.echo(f"  {note}")
        if model["check"] is not None:
            typer.echo(f"  self-check  {model['check']}")


def _settings_of(package: Package, *, check: bool) -> dict[str, Any]:
    from edgeai.config import home_dir
    from edgeai.errors import TrialFailed
    from edgeai.tuning.choose import read_situation, remembered
    from edgeai.tuning.explain import explain_settings
    from edgeai.tuning.self_check import SelfCheck

    situation = read_situation(package, {}, home=home_dir())
    chosen, seen = remembered(situation), None
    if check:
        checking = SelfCheck(situation, home_dir(), say)
        try:
            chosen = checking.run("always")
            outcome = checking.outcome_of(chosen.level)
            speed = f", {outcome.tokens_per_second:.1f} tokens/s" if outcome else ""
            seen = f"works with the {chosen.level.name} settings{speed}"
        except TrialFailed as error:
            seen = error.message
    return {
        "model": package.name,
        "settings": [asdict(each) | {"value": each.value} for each in explain_settings(situation, chosen)],
        "notes": list(chosen.notes),
        "check": seen,
    }
