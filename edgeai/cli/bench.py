"""`edgeai bench`: how fast a model is here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, emit, open_package


def bench(
    model: ModelArgument,
    rounds: Annotated[int, typer.Option(min=1, help="How often to measure; the median counts.")] = 3,
    json: JsonFlag = False,
) -> None:
    """Measure tokens per second on this machine."""
    package = open_package(model)
    from edgeai.measure.throughput import measure
    from edgeai.model import Model

    with Model.load(package) as loaded:
        result = asdict(measure(loaded.engine, rounds=rounds))
        threads = loaded.engine.settings.threads
    if json:
        emit({"model": package.name, "digest": package.digest, "threads": threads} | result)
        return
    typer.echo(f"{package.name}, {threads} threads, tokens per second")
    for name, value in result.items():
        typer.echo(f"  {name:16}{value:10.1f}")
