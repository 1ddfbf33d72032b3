"""`edgeai eval`: how well a model predicts a text, does the task set, or does it beside another model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeai.cli.output import JsonFlag, emit, open_package, progress_display

if TYPE_CHECKING:
    from edgeai.engine.config import KVType
    from edgeai.measure.perplexity import Divergence
    from edgeai.measure.task_scores import Answer, Comparison, Score
    from edgeai.package.package import Package

USAGE = (
    "edgeai eval MODEL --text FILE [--kv-type int8] [--prompt-weights], edgeai eval MODEL --tasks,"
    " or edgeai eval --compare A B"
)


def evaluate(
    model: Annotated[str | None, typer.Argument(help="An installed model's name, or a package folder.")] = None,
    text: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Perplexity of a plain text, UTF-8.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens of one chunk; the second half of each is scored.")] = 512,
    kv_type: Annotated[
        Literal["float32", "int8"] | None,
        typer.Option(help="Of the KV cache, for --text; int8 is held against the floats."),
    ] = None,
    prompt_weights: Annotated[
        bool,
        typer.Option("--prompt-weights", help="For --text: what reading with int8 weights changes in what follows."),
    ] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="Score on the task set that comes with edgeai.")] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two models on the task set, item by item.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="Only this category of tasks.")] = None,
    json: JsonFlag = False,
) -> None:
    """Measure perplexity (by llama.cpp's protocol) or the score on a small set of tasks."""
    of_text = kv_type is not None or prompt_weights
    if compare is not None and model is None and text is None and not of_text and not tasks:
        _compare(compare, category, json)
    elif compare is None and model is not None and text is not None and not tasks:
        _text(open_package(model), text, context, kv_type or "float32", prompt_weights, json)
    elif compare is None and model is not None and text is None and not of_text and tasks:
        _tasks(model, category, json)
    else:
        raise typer.BadParameter(USAGE)


def _text(package: Package, text: Path, context: int, kv_type: KVType, prompt_weights: bool, json: bool) -> None:
    from edgeai.errors import InvalidInput, OutOfMemory
    from edgeai.measure.perplexity import divergence, perplexity
    from edgeai.model import Model, default_settings

    words = _read(text)
    if prompt_weights and package.prompt_weights is None:
        raise InvalidInput(f"{package.name} has no weights for prompts", "build it with --prompt-weights")
    about = {"model": package.name, "digest": package.digest, "context": context}
    with ExitStack() as stack:

        def load(**chosen: Any) -> Model:
            settings = default_settings(package.manifest, max_rows=1, **chosen)
            return stack.enter_context(Model.load(package, settings))

        exact, progress = load(prompt_weights=False), stack.enter_context(progress_display())
        if kv_type == "int8" or prompt_weights:
            measured = load(kv_type=kv_type, prompt_weights=prompt_weights)
            if prompt_weights and not measured.engine.runner.complete():
                raise OutOfMemory("there is no memory for the weights for prompts")
            apart = divergence(measured, exact, words, context=context, progress=progress)
            found, line = asdict(apart), _apart(apart, kv_type, prompt_weights)
        else:
            result = perplexity(exact, words, context=context, progress=progress)
            found, line = asdict(result), f"perplexity {result.perplexity:.4f} over {result.tokens} tokens"
    if json:
        emit(about | found)
    else:
        typer.echo(f"{line} in chunks of {context}")


def _apart(found: Divergence, kv_type: KVType, prompt_weights: bool) -> str:
    changes = {"an int8 cache": kv_type == "int8", "weights for prompts": prompt_weights}
    what = " and ".join(name for name, there in changes.items() if there)
    return (
        f"perplexity {found.measured.perplexity:.4f} with {what}, {found.reference.perplexity:.4f} without;"
        f" KL {found.mean_kl:.5f} nats per token, 99 % below {found.p99_kl:.5f}, at most {found.max_kl:.5f};"
        f" the same likeliest token {100 * found.top_token_agreement:.1f} %, over {found.measured.tokens} tokens"
    )


def _read(text: Path) -> str:
    from edgeai.errors import InvalidInput

    try:
        return text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{text} is not UTF-8 text: {error}", param="text") from error


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
