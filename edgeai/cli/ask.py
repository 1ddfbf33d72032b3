"""`edgeai ask`: one question to a running server, here or on the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeai.cli.board import Board, BoardOption, KeyOption
from edgeai.cli.output import JsonFlag, emit
from edgeai.cli.run import MaxTokens, Seed, System, Temperature, show
from edgeai.errors import InvalidInput


def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads standard input.")],
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="A text file that goes before the question.")
    ] = None,
    board: BoardOption = None,
    key: KeyOption = None,
    model: Annotated[str | None, typer.Option(help="Which of the board's models.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    json: JsonFlag = False,
) -> None:
    """Ask a board, which need not load a model for it."""
    asked = sys.stdin.read() if question == "-" else question
    content = "".join(f"[{path.name}]\n{read(path)}\n\n" for path in file or ()) + asked
    opening = [{"role": "system", "content": system}] if system else []
    messages = [*opening, {"role": "user", "content": content}]
    pieces = Board.named(board, key).chat(
        messages, model=model, max_tokens=max_tokens, temperature=temperature, seed=seed
    )
    if json:
        emit({"text": "".join(pieces)})
        return
    for piece in pieces:
        show(piece)
    typer.echo()


def read(path: Path) -> str:
    """The text of a file. Raises `InvalidInput` for what is not there or is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", "--file takes text files") from error
