"""The `edgeai` command: one file per group of commands, each importing what it needs only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import edgeai
from edgeai.cli import (
    adapter,
    ask,
    bench,
    build,
    bundle,
    card,
    chat,
    completion,
    config,
    discover,
    doctor,
    encode,
    evaluate,
    fetch,
    keys,
    models,
    recipes,
    run,
    serve,
    status,
    tune,
    warm,
)
from edgeai.cli.output import emit_error, print_error
from edgeai.errors import EdgeaiError

# typer has had click inside and outside of it; this is the class of wrong usage in either.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Open-weight language models on small computers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(build.build)
app.command()(fetch.fetch)
app.add_typer(recipes.app, name="recipes")
app.command()(warm.warm)
app.command()(models.verify)
app.add_typer(models.app, name="models")
app.command()(bundle.export)
app.command("import")(bundle.import_)
app.add_typer(bundle.app, name="trust")
app.add_typer(adapter.app, name="adapter")
app.command()(run.run)
app.command()(chat.chat)
app.command()(encode.embed)
app.command()(encode.rerank)
app.command()(serve.serve)
app.add_typer(config.app, name="config")
app.command()(discover.discover)
app.add_typer(keys.app, name="keys")
app.command()(ask.ask)
app.command()(status.status)
app.command()(bench.bench)
app.command()(tune.tune)
app.command()(card.card)
app.command("eval")(evaluate.evaluate)
app.command()(doctor.doctor)
app.command()(completion.completion)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeai {edgeai.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Open-weight language models on small computers."""


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 for what failed, 2 for wrong usage, 130 when interrupted."""
    as_json = "--json" in arguments
    report = emit_error if as_json else print_error
    try:
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
