"""`edgeai status`: what a running server does, here or on the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from edgeai.cli.board import Board, BoardOption, KeyOption
from edgeai.cli.output import JsonFlag, emit


def status(board: BoardOption = None, key: KeyOption = None, json: JsonFlag = False) -> None:
    """Show a board's models, requests, memory and temperature."""
    asked = Board.named(board, key)
    said = asked.get("/status")
    if json:
        emit(said)
        return
    for name, value in facts(asked.url, said):
        typer.echo(f"{name:<13}{value}")


def facts(url: str, said: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `/status` says, in words."""
    counts, memory, device = said["counts"], said["memory"], said["device"]
    minutes = int(said["uptime_seconds"] // 60)
    yield "board", f"{said['name']}, edgeai {said['version']}, {url}"
    yield "running for", f"{minutes // 60} h {minutes % 60} min"
    yield "models", ", ".join(model["id"] for model in said["models"]) or "none"
    yield "requests", f"{counts['running']} running, {counts['waiting']} waiting"
    read = f"{counts['prompt_tokens']} read, {counts['cached_tokens']} of these from the cache"
    yield "tokens", f"{counts['generated_tokens']} written, {read}"
    yield "cache", f"{_mib(counts['cache_bytes'])} of {_mib(counts['cache_budget_bytes'])}"
    yield "memory", f"{_mib(memory['used_bytes'])} of {_mib(memory['total_bytes'])} in use, {memory['state']}"
    yield "load", f"{device['load']:.2f}"
    if device["celsius"] is not None:
        yield "temperature", f"{device['celsius']:.0f} °C"
    if written := said["card"]["written_bytes"]:
        day = max(written)
        yield "card", f"{_mib(written[day])} written on {day}"


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
