"""Kinds of models: what each is called, where it is asked, and the errors of asking elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from edgeai.errors import InvalidInput, NotFound
from edgeai.package.manifest import Kind

TITLES: Mapping[Kind, str] = {
    "decoder": "a language model",
    "embedding": "an embedding model",
    "reranker": "a reranker",
}
ADDRESSES: Mapping[Kind, str] = {
    "decoder": "/v1/chat/completions or /v1/completions",
    "embedding": "/v1/embeddings",
    "reranker": "/v1/rerank",
}


def wrong_kind(name: str, kind: Kind, wanted: Kind) -> InvalidInput:
    """The error for a model that is asked for what another kind does."""
    return InvalidInput(
        f"{name} is {TITLES[kind]}, not {TITLES[wanted]}", f"ask it at {ADDRESSES[kind]}", param="model"
    )


def none_of(kind: Kind) -> NotFound:
    """The error of a server without any model of this kind."""
    return NotFound(f"this server has no {TITLES[kind].split(' ', 1)[1]}", "`edgeai models list` shows what there is")
