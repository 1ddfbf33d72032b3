"""`edgeai bench` and `edgeai eval`: how fast a model is here, and how well it predicts a text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, emit, open_package, progress_display


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


def evaluate(
    model: ModelArgument,
    text: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="A plain text, UTF-8.")],
    context: Annotated[int, typer.Option(help="Tokens of one chunk; the second half of each is scored.")] = 512,
    json: JsonFlag = False,
) -> None:
    """Measure perplexity, by llama.cpp's protocol."""
    from edgeai.errors import InvalidInput

    try:
        words = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{text} is not UTF-8 text: {error}", param="text") from error
    package = open_package(model)
    from edgeai.measure.perplexity import perplexity
    from edgeai.model import Model

    with Model.load(package) as loaded, progress_display() as progress:
        result = perplexity(loaded, words, context=context, progress=progress)
    if json:
        emit({"model": package.name, "digest": package.digest, "context": context} | asdict(result))
    else:
        typer.echo(f"perplexity {result.perplexity:.4f} over {result.tokens} tokens in chunks of {context}")
