"""`edgeai card`: how good a package is, measured when it was built."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgeai.cli.output import JsonFlag, emit, open_package


def card(
    package: Annotated[str, typer.Argument(help="A package folder, or an installed model's name.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show a package's quality card: distance from its source, sample answers, licence, provenance."""
    from edgeai.package.card import card as make_card
    from edgeai.package.card import markdown as as_markdown

    document = make_card(open_package(package))
    if json:
        emit(document)
    elif markdown:
        typer.echo(as_markdown(document), nl=False)
    else:
        _print(document)


def _print(document: dict[str, object]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from edgeai.package.card import card_rows

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"[bold]{escape(str(document['name']))}[/]  {escape(str(document['description']))}")
    table = Table(box=None, show_header=False)
    for name, value in card_rows(document):
        table.add_row(f"[bold]{name}[/]", escape(value))
    console.print(table)
    samples = document["samples"]
    if isinstance(samples, list) and samples:
        answers = Table("prompt", "this package", "its source", box=None)
        for sample in samples:
            answers.add_row(*(escape(sample[key] or "not asked") for key in ("prompt", "answer", "source_answer")))
        console.print(answers)
