"""`edgeai completion`: what a shell needs to complete commands, options and names of models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

VARIABLE = "_EDGEAI_COMPLETE"
completion_init()  # the classes that answer the shell


class Shell(StrEnum):
    """The shells that there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Of which shell.")]) -> None:
    """Print a shell's completion: eval "$(edgeai completion bash)" in ~/.bashrc."""
    typer.echo(get_completion_script(prog_name="edgeai", complete_var=VARIABLE, shell=shell.value))
