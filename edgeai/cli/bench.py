"""`edgeai bench`: how fast a model is here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, Threads, UseProfile, emit, load_model


def bench(
    model: ModelArgument,
    rounds: Annotated[int, typer.Option(min=1, help="How often to measure; the median counts.")] = 3,
    threads: Threads = None,
    profile: UseProfile = True,
    json: JsonFlag = False,
) -> None:
    """Measure tokens per second on this machine."""
    from edgeai.measure.throughput import measure

    with load_model(model, threads=threads, profile=profile) as loaded:
        loaded.engine.runner.complete()
        result = asdict(measure(loaded.engine, rounds=rounds))
        used, package = loaded.engine.settings.threads, loaded.package
    if json:
        emit({"model": package.name, "digest": package.digest, "threads": used} | result)
        return
    typer.echo(f"{package.name}, {used} threads, tokens per second")
    for name, value in result.items():
        typer.echo(f"  {name:16}{value:10.1f}")
