"""The embedding models and rerankers that a server answers with, by name; beside the language models of the pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeai.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from edgeai.encoder.async_encoder import AsyncEncoder, EncoderStats
    from edgeai.package.manifest import Kind

DEFAULT_NAMES = frozenset({None, "", "default"})
# What each kind is, and where it is asked.
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


class EncoderPool:
    """Loaded encoders; the first of each kind is that kind's default."""

    def __init__(self, encoders: Sequence[AsyncEncoder] = ()) -> None:
        self._encoders = {encoder.name: encoder for encoder in encoders}

    def get(self, name: str | None, kind: Kind, decoders: Collection[str]) -> AsyncEncoder:
        """The encoder of this kind that a request names, or the default. Raises `NotFound`, `InvalidInput`.

        `decoders` are the names of models that only write text.
        """
        if name is not None and name in decoders:
            raise wrong_kind(name, "decoder", kind)
        if name in DEFAULT_NAMES and name not in self._encoders:
            return self._default(kind)
        encoder = self._encoders.get(name or "")
        if encoder is None:
            there = [*decoders, *self._encoders]
            raise NotFound(f"there is no model {name!r}", f"there is {', '.join(sorted(there))}")
        if encoder.kind != kind:
            raise wrong_kind(encoder.name, encoder.kind, kind)
        return encoder

    def all(self) -> Mapping[str, AsyncEncoder]:
        """All of them, by name."""
        return self._encoders

    def stats(self) -> dict[str, EncoderStats]:
        """Counts by model."""
        return {name: encoder.stats() for name, encoder in self._encoders.items()}

    async def close(self) -> None:
        """Stop all of them; requests that wait are told so."""
        for encoder in self._encoders.values():
            await encoder.close()

    def _default(self, kind: Kind) -> AsyncEncoder:
        for encoder in self._encoders.values():
            if encoder.kind == kind:
                return encoder
        raise NotFound(
            f"this server has no {TITLES[kind].split(' ', 1)[1]}",
            "`edgeai serve --model NAME --model ENCODER` adds one",
        )


def wrong_kind(name: str, kind: Kind, wanted: Kind) -> InvalidInput:
    """The error for a model that is asked for what another kind does."""
    return InvalidInput(
        f"{name} is {TITLES[kind]}, not {TITLES[wanted]}", f"ask it at {ADDRESSES[kind]}", param="model"
    )
