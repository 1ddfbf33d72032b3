"""`edgeai discover`: the boards on this network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgeai.cli.output import JsonFlag, emit, say


def discover(
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long to listen.")] = 3.0,
    json: JsonFlag = False,
) -> None:
    """List the edgeai servers on this network, with their models and load."""
    from edgeai.discovery.browse import discover as look

    boards = look(seconds)
    if json:
        emit({"boards": [asdict(board) for board in boards]})
        return
    if not boards:
        say("no board has answered; they announce themselves when they listen on the network (`edgeai serve --host`)")
    for board in boards:
        load = f"{board.running} running, {board.waiting} waiting"
        print(f"{board.name}.local  {board.url}  {board.state}  {load}  {', '.join(board.models)}")
