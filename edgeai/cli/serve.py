"""`edgeai serve`: the REST server."""

from __future__ import annotations

import gc
import os
from typing import Annotated, Literal

import typer

from edgeai.cli.config import ConfigFile
from edgeai.cli.output import say


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on: 127.0.0.1, or 0.0.0.0 to let the whole network in.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8080 by default.")] = None,
    name: Annotated[str | None, typer.Option(help="The board's name; by default the machine's own.")] = None,
    announce: Annotated[
        bool | None,
        typer.Option(
            "--announce/--no-announce",
            help="Whether to tell the network as NAME.local, by multicast DNS; by default where others can reach it.",
        ),
    ] = None,
    ollama_port: Annotated[
        int | None, typer.Option(help="A second port to listen on: 11434 for software that knows Ollama's only.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="An installed model's name, or a package folder; also several times. Without it everything that is"
            " installed is served."
        ),
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="A model to load at the start and never to unload; also several times.")
    ] = None,
    preload: Annotated[
        list[str] | None, typer.Option(help="A model to load at the start; others are loaded when they are asked for.")
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Another name for a model, such as gpt-4o-mini=smollm2-135m-instruct; also several times."),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            help="How long models stay in memory after their last request: 5m, 1h, 0; by default until others need it."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that compute; by default one per core.")] = None,
    context: Annotated[int | None, typer.Option(help="Most tokens of one conversation.")] = None,
    kv_budget: Annotated[str | None, typer.Option(help="Memory for conversations, such as 512M or 2GiB.")] = None,
    kv_type: Annotated[
        Literal["float32", "int8"] | None,
        typer.Option(help="Of the KV cache: int8 takes a quarter of the memory, and prompts take longer."),
    ] = None,
    prompt_weights: Annotated[
        bool | None,
        typer.Option(
            "--prompt-weights/--no-prompt-weights",
            help="Whether prompts are read with int8 weights, where a package and memory have them.",
        ),
    ] = None,
    kv_disk: Annotated[
        str | None, typer.Option(help="Disk for prompts that need not be read again after a restart; 0 for none.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Most answers that are written at once.")] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(help="Most milliseconds between two tokens of an answer, while prompts are read; 250 by default."),
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Most requests that wait for their turn; 64 by default.")
    ] = None,
    max_queue_per_client: Annotated[
        int | None, typer.Option(help="Most of them that one client may have; half of all by default.")
    ] = None,
    profile: Annotated[
        bool | None,
        typer.Option("--profile/--no-profile", help="Whether to use what `edgeai tune` found for this machine."),
    ] = None,
    check: Annotated[
        Literal["always", "changed", "never"] | None,
        typer.Option(help="When to try the settings in a child process first: changed, if something has since."),
    ] = None,
    kv_writes: Annotated[
        str | None, typer.Option(help="Most of them to write in a day, 2GiB by default: SD cards wear.")
    ] = None,
    auth: Annotated[
        bool | None,
        typer.Option("--auth/--no-auth", help="Whether clients need an API key; by default if others can reach it."),
    ] = None,
    tls: Annotated[
        Literal["off", "self-signed"] | None,
        typer.Option(help="self-signed: HTTPS by a certificate made here."),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(help="HTTPS by this certificate, a PEM file with its chain; needs --tls-key.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(help="The key of --tls-cert, a PEM file.")] = None,
    hostname: Annotated[
        list[str] | None, typer.Option(help="A name that clients may call this server by, beside its own.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages elsewhere that may ask, such as https://example.org.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Of a key, or address without keys, that has no limit of its own.")
    ] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="The same of tokens, read and written.")] = None,
    power: Annotated[
        bool | None,
        typer.Option("--power/--no-power", help="Whether to work less when the board is hot or its battery low."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="The least that is logged.")
    ] = None,
    log_format: Annotated[Literal["text", "json"] | None, typer.Option(help="Lines for people or programs.")] = None,
    config: ConfigFile = None,
) -> None:
    """Serve models over HTTP, the way OpenAI's API does.

    Every flag is a setting of `edgeai config show`, which files and EDGEAI_ variables can give as well.
    """
    flags = {name: value for name, value in locals().items() if name != "config"}
    gc.disable()  # until the server is there: what is imported stays
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else numpy starts threads, which nothing here uses
    from edgeai.server.serve import serve as run_server
    from edgeai.settings.resolve import resolve

    found = resolve(flags, config)
    for warning in found.warnings:
        say(f"warning: {warning}")
    run_server(found.settings, read=lambda: resolve(flags, config).settings)
