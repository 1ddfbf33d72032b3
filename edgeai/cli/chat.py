"""`edgeai chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import typer

from edgeai.cli.board import Board, BoardOption, KeyOption, Refused
from edgeai.cli.output import Threads, UseProfile, load_model, print_error, say
from edgeai.cli.run import MaxTokens, Seed, System, Temperature, show
from edgeai.errors import ContextLengthExceeded, InvalidInput, Overloaded

Reply = Callable[[list[dict[str, Any]]], Iterable[str]]  # from messages to the pieces of an answer

HELP = """\
/reset   forget the conversation
/quit    leave (so does Ctrl-D)
/help    this
Ctrl-C stops an answer."""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="An installed model's name, or a package folder; without it a running server is asked."),
    ] = None,
    board: BoardOption = None,
    key: KeyOption = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    threads: Threads = None,
    profile: UseProfile = True,
) -> None:
    """Talk with a model: one that is loaded for it, or one of a board."""
    if model is None:
        asked = Board.named(board, key)
        options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        talk(f"a model of {asked.url}", lambda messages: asked.chat(messages, **options), system)
        return
    with load_model(model, threads=threads, profile=profile) as loaded:
        if loaded.template is None:
            raise InvalidInput(f"{loaded.name} has no chat template", "use `edgeai run`, which continues a text")
        params = loaded.default_params(max_tokens=max_tokens, temperature=temperature, seed=seed)
        name = f"{loaded.name}, {loaded.manifest.licence.spdx}"
        talk(name, lambda messages: (chunk.text for chunk in loaded.chat(messages, params)), system)


def talk(name: str, reply: Reply, system: str | None) -> None:
    """Hold a conversation until the user leaves."""
    conversation = Conversation(reply, system)
    if sys.stdin.isatty():
        say(f"{name}. /help says what else you can type.")
    for line in lines():
        if not conversation.hear(line.strip()):
            return


def lines() -> Iterator[str]:
    """What the user types until the end of input; with line editing on a terminal."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401  # gives input() its editing and history

    from rich.console import Console

    console = Console()
    while True:
        try:
            yield console.input("\n[bold cyan]you[/] ")
        except (EOFError, KeyboardInterrupt):
            return


class Conversation:
    """Messages so far. What the user says is kept only together with the answer."""

    def __init__(self, reply: Reply, system: str | None) -> None:
        self._reply = reply
        self._opening: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._opening)

    def hear(self, line: str) -> bool:
        """Obey or answer one line; False ends the conversation."""
        match line:
            case "":
                pass
            case "/quit" | "/exit":
                return False
            case "/reset":
                self._messages = list(self._opening)
                say("forgotten")
            case "/help":
                say(HELP)
            case _ if line.startswith("/"):
                say(f"there is no {line.split()[0]}; /help says what there is")
            case _:
                self._answer(line)
        return True

    def _answer(self, line: str) -> None:
        asked = [*self._messages, {"role": "user", "content": line}]
        answer = ""
        try:
            for piece in self._reply(asked):
                answer += piece
                show(piece)
        except (ContextLengthExceeded, Refused, Overloaded) as error:
            print_error(
                "", error.message, "/reset starts afresh" if isinstance(error, ContextLengthExceeded) else error.hint
            )
            return
        except KeyboardInterrupt:
            say("\nstopped")
        else:
            show("\n")
        self._messages = [*asked, {"role": "assistant", "content": answer}]
