"""`edgeai eval`: how well a model predicts a text, does the task set, or does it beside another model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeai.cli.output import JsonFlag, emit, open_package, progress_display

if TYPE_CHECKING:
    from edgeai.measure.task_scores import Answer, Comparison, Score
    from edgeai.package.package import Package

USAGE = "edgeai eval MODEL --text FILE, edgeai eval MODEL --tasks, or edgeai eval --compare A B"


def evaluate(
    model: Annotated[str | None, typer.Argument(help="An installed model's name, or a package folder.")] = None,
    text: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Perplexity of a plain text, UTF-8.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens of one chunk; the second half of each is scored.")] = 512,
    tasks: Annotated[bool, typer.Option("--tasks", help="Score on the task set that comes with edgeai.")] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two models on the task set, item by item.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="Only this category of tasks.")] = None,
    json: JsonFlag = False,
) -> None:
    """Measure perplexity (by llama.cpp's protocol) or the score on a small set of tasks."""
    if compare is not None and model is None and text is None and not tasks:
        _compare(compare, category, json)
    elif compare is None and model is not None and (text is None) == tasks:
        _tasks(model, category, json) if tasks else _perplexity(model, text, context, json)
    else:
        raise typer.BadParameter(USAGE)


def _perplexity(model: str, text: Path | None, context: int, json: bool) -> None:
    from edgeai.errors import InvalidInput

    if text is None:
        raise typer.BadParameter(USAGE)
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


def _tasks(model: str, category: str | None, json: bool) -> None:
    from edgeai.measure.task_scores import by_category, score

    package = open_package(model)
    answers = _answers(package, category)
    whole, parts = score(answers), by_category(answers)
    if json:
        document = {"model": package.name, "digest": package.digest, "score": asdict(whole)}
        document |= {"categories": {name: asdict(part) for name, part in parts.items()}}
        emit(document | {"answers": [asdict(answer) for answer in answers]})
        return
    typer.echo(f"{package.name}: {_share(whole)}")
    for name, part in parts.items():
        typer.echo(f"  {name:12}{_share(part)}")


def _compare(models: tuple[str, str], category: str | None, json: bool) -> None:
    from edgeai.measure.task_scores import compare

    first, second = (open_package(model) for model in models)
    one, other = _answers(first, category), _answers(second, category)
    found = compare(one, other)
    if json:
        emit({"first": _identity(first), "second": _identity(second), "comparison": asdict(found)})
    else:
        _print_comparison(first, second, found)


def _answers(package: Package, category: str | None) -> list[Answer]:
    from edgeai.measure.items import load_items
    from edgeai.measure.task_scores import answer_items
    from edgeai.model import Model

    items = load_items(category)
    with Model.load(package) as loaded, progress_display() as progress:
        return answer_items(loaded, items, progress)


def _identity(package: Package) -> dict[str, Any]:
    return {"model": package.name, "digest": package.digest, "size_bytes": package.size_bytes}


def _share(found: Score) -> str:
    low, high = 100 * found.interval.low, 100 * found.interval.high
    return f"{100 * found.share:.1f} % of {found.total} right (95 % interval {low:.1f} to {high:.1f})"


def _print_comparison(first: Package, second: Package, found: Comparison) -> None:
    typer.echo(f"A {first.name}: {_share(found.first)}")
    typer.echo(f"B {second.name}: {_share(found.second)}")
    low, high = 100 * found.interval.low, 100 * found.interval.high
    typer.echo(
        f"B - A: {100 * found.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f});"
        f" only A right {found.only_first}, only B right {found.only_second}, McNemar p = {found.p_value:.3f}"
    )
    verdict = "B is worse than A" if high < 0 else "B is better than A" if low > 0 else "no difference can be told"
    typer.echo(f"{verdict} on this set")
