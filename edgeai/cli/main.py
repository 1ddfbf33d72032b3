"""The `edgeai` command: one file per group of commands, each importing what it needs only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

import edgeai
from edgeai.cli.output import emit_error, print_error
from edgeai.errors import EdgeaiError

# typer has had click inside and outside of it; this is the class of wrong usage in either.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

# Each command's module here, and the name that its function, or its group of commands, has there.
COMMANDS = {
    "build": ("build", "build"),
    "fetch": ("fetch", "fetch"),
    "warm": ("warm", "warm"),
    "export": ("bundle", "export"),
    "import": ("bundle", "import_"),
    "update": ("update", "update"),
    "verify": ("models", "verify"),
    "run": ("run", "run"),
    "chat": ("chat", "chat"),
    "embed": ("encode", "embed"),
    "rerank": ("encode", "rerank"),
    "serve": ("serve", "serve"),
    "discover": ("discover", "discover"),
    "ask": ("ask", "ask"),
    "status": ("status", "status"),
    "bench": ("bench", "bench"),
    "tune": ("tune", "tune"),
    "card": ("card", "card"),
    "eval": ("evaluate", "evaluate"),
    "doctor": ("doctor", "doctor"),
    "completion": ("completion", "completion"),
    "recipes": ("recipes", "app"),
    "models": ("models", "app"),
    "adapter": ("adapter", "app"),
    "config": ("config", "app"),
    "trust": ("bundle", "app"),
    "keys": ("keys", "app"),
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeai {edgeai.__version__}")
        raise typer.Exit


def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Open-weight language models on small computers."""


def make_app(only: str | None = None) -> typer.Typer:
    """The command line with all commands, or with `only` one: to import and describe them all takes 40 ms."""
    app = typer.Typer(
        help="Open-weight language models on small computers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for name, (module, attribute) in COMMANDS.items():
        if only in (None, name):
            command = getattr(import_module(f"edgeai.cli.{module}"), attribute)
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name)
            else:
                app.command(name)(command)
    return app


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 for what failed, 2 for wrong usage, 130 when interrupted."""
    as_json = "--json" in arguments
    report = emit_error if as_json else print_error
    try:
        app = make_app(arguments[0] if arguments and arguments[0] in COMMANDS else None)
        code = app(list(arguments), prog_name="edgeai", standalone_mode=False)
    except EdgeaiError as error:
        report(type(error).__name__, error.message, error.hint)
        return 1
    except USAGE_ERROR as error:
        if as_json:
            emit_error("UsageError", error.format_message(), "see --help")  # type: ignore[attr-defined]
        else:
            error.show()  # type: ignore[attr-defined]
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:
        report(type(error).__name__, str(error), "")
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(execute(sys.argv[1:]))
