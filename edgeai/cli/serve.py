"""`edgeai serve`: the REST server."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgeai.cli.output import UseProfile


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="An installed model's name, or a package folder; several times for embedding models and rerankers"
            " beside a language model. Without it everything that is installed."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that compute; by default one per core.")] = None,
    context: Annotated[int | None, typer.Option(help="Most tokens of one conversation.")] = None,
    kv_budget: Annotated[str | None, typer.Option(help="Memory for conversations, such as 512M or 2GiB.")] = None,
    kv_type: Annotated[
        Literal["float32", "int8"] | None,
        typer.Option(help="Of the KV cache: int8 takes a quarter of the memory, and prompts take longer."),
    ] = None,
    kv_disk: Annotated[
        str | None, typer.Option(help="Disk for prompts that need not be read again after a restart; 0 for none.")
    ] = None,
    profile: UseProfile = True,
    check: Annotated[
        Literal["always", "changed", "never"],
        typer.Option(help="When to try the settings in a child process first: changed, if something has since."),
    ] = "changed",
    kv_writes: Annotated[str, typer.Option(help="Most of them to write in a day: SD cards wear.")] = "2GiB",
) -> None:
    """Serve models over HTTP, the way OpenAI's API does."""
    from edgeai.config import ServerSettings, parse_size

    settings = ServerSettings(
        host=host,
        port=port,
        model=model[0] if model else None,
        also=tuple(model[1:]) if model else (),
        threads=threads,
        max_context=context,
        kv_budget_bytes=parse_size(kv_budget) if kv_budget else None,
        kv_type=kv_type,
        kv_disk_bytes=parse_size(kv_disk) if kv_disk else None,
        kv_daily_bytes=parse_size(kv_writes),
        profile=profile,
        check=check,
    )
    from edgeai.server.serve import serve as run_server

    run_server(settings)
