"""`edgeai embed` and `edgeai rerank`: vectors of texts, and documents in the order of what they say to a query."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edgeai.cli.output import JsonFlag, ModelArgument, emit, open_package

if TYPE_CHECKING:
    from edgeai.encoder.encoder import Encoder

Truncate = Annotated[bool, typer.Option(help="Cut text that is too long for the model, instead of refusing it.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute; by default one per core.")]


def embed(
    model: ModelArgument,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to embed; - reads lines.")],
    input_type: Annotated[
        str | None, typer.Option(help="What the texts are, such as query or passage: chooses the model's prompt.")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Keep the first values only; for models trained for that.")
    ] = None,
    truncate: Truncate = False,
    threads: Threads = None,
) -> None:
    """Print the vectors of texts, as one JSON document."""
    from edgeai.encoder.pooling import shortened

    encoder = load(model, threads)
    wanted = lines() if texts == ["-"] else texts
    vectors = shortened(
        encoder.embed(wanted, prompt=input_type, truncate=truncate), dimensions, normalize=encoder.info.normalize
    )
    emit({"model": encoder.name, "dimensions": vectors.shape[1], "embeddings": vectors.tolist()})


def rerank(
    model: ModelArgument,
    query: Annotated[str, typer.Argument(help="What is looked for.")],
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT...", help="Where; - reads lines.")],
    top: Annotated[int | None, typer.Option(min=1, help="Only so many, the best ones.")] = None,
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Sort documents by how well they answer a query."""
    from edgeai.encoder.ranking import ranked

    encoder = load(model, threads)
    wanted = lines() if documents == ["-"] else documents
    results = ranked(encoder.rerank(query, wanted), top)
    if json:
        listed = [{"index": place, "relevance_score": score, "document": wanted[place]} for place, score in results]
        emit({"model": encoder.name, "results": listed})
        return
    for place, score in results:
        typer.echo(f"{score:.4f}  {wanted[place]}")


def load(model: str, threads: int | None) -> Encoder:
    """The encoder that a user calls `model`. Raises `InvalidInput` for a language model."""
    package = open_package(model)
    from edgeai.encoder.encoder import Encoder

    return Encoder(package, threads=threads)


def lines() -> list[str]:
    """Standard input's lines that are not empty."""
    return [line for line in sys.stdin.read().splitlines() if line.strip()]
