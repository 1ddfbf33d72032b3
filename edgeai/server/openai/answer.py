"""What both endpoints do once the prompts are token ids: run the generation and write it, streamed or whole."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgeai.engine.request import FinishReason, TokenOutput
from edgeai.server.generation import Generation, Usage
from edgeai.server.openai.logprobs import ShownTokens
from edgeai.server.streaming import EventStream, StreamedReply, unless_disconnected

if TYPE_CHECKING:
    from edgeai.model import AsyncModel, Chunk

FINGERPRINT_DIGITS = 12


@dataclass(slots=True)
class Choice:
    """One choice of an answer that is not streamed; `tokens` are those that its text accounts for."""

    text: str = ""
    tokens: list[TokenOutput] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    _shown: ShownTokens = field(default_factory=ShownTokens)

    def add(self, chunk: Chunk) -> None:
        """Append the next chunk."""
        self.text += chunk.text
        self.tokens += self._shown.push(chunk)
        self.finish_reason = chunk.finish_reason or self.finish_reason


class Reply(StreamedReply, Protocol):
    """How an endpoint writes a generation, streamed or whole."""

    def whole(self, choices: list[Choice], usage: Usage) -> dict[str, Any]:
        """The answer that is not streamed."""
        ...


def head(kind: str, prefix: str, model: AsyncModel) -> dict[str, Any]:
    """The fields that every document of an answer begins with; the fingerprint names the exact package and adapter."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": f"fp_{model.digest[:FINGERPRINT_DIGITS]}",
    }


async def answer(request: Request, generation: Generation, reply: Reply, *, stream: bool, choices: int) -> Response:
    """Run `generation` and write it with `reply`; a client that leaves ends it. Raises what the engine raises."""
    request.scope.setdefault("state", {})["usage"] = generation.usage
    if stream:
        return EventStream(generation, reply)
    finished = await unless_disconnected(request.receive, _collect(generation, choices))
    return JSONResponse(reply.whole(finished, generation.usage))


async def _collect(generation: Generation, choices: int) -> list[Choice]:
    collected = [Choice() for _ in range(choices)]
    async with generation:
        async for number, chunk in generation:
            collected[number].add(chunk)
    return collected
