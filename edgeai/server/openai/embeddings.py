"""`POST /v1/embeddings`: texts to vectors."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.errors import InvalidInput
from edgeai.server.encoder_protocol import EmbeddingsRequest
from edgeai.server.generation import Usage
from edgeai.server.json_response import json_response
from edgeai.server.model_pool import ModelPool

DECIMALS = 9  # float32 has no more of a vector of length 1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeai.encoder.async_encoder import AsyncEncoder
    from edgeai.encoder.tokens import Tokens


def router(models: ModelPool) -> APIRouter:
    """The endpoint over the embedding models of `models`."""
    routes = APIRouter()

    @routes.post("/v1/embeddings", response_model=None)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        model = await models.encoder(body.model, "embedding", request, body.keep_alive)
        vectors, usage = await embed(model, body)
        request.state.usage = usage
        return await asyncio.to_thread(_answer, model.name, vectors, body.encoding_format == "base64", usage)

    return routes


async def embed(model: AsyncEncoder, body: EmbeddingsRequest) -> tuple[NDArray[np.float32], Usage]:
    """Vectors [inputs, dimension] and the tokens they took. Raises `InvalidInput`, `ContextLengthExceeded`."""
    from edgeai.encoder.pooling import check_dimensions, shortened

    info = model.encoder.info
    check_dimensions(body.dimensions, info.dimension)
    sequences = await asyncio.to_thread(encode_inputs, model, body)
    vectors = shortened(await model.compute(sequences), body.dimensions, normalize=info.normalize)
    return vectors, Usage(prompt=sum(map(len, sequences)))


def encode_inputs(model: AsyncEncoder, body: EmbeddingsRequest) -> list[Tokens]:
    """Tokens of each input. Raises `InvalidInput` and `ContextLengthExceeded`."""
    from edgeai.encoder.encoder import prompt_for

    encoder, truncate = model.encoder, bool(body.truncate)
    start = prompt_for(encoder.info, body.input_type)
    texts = {number: entry for number, entry in enumerate(body.input) if isinstance(entry, str)}
    if "" in texts.values():
        raise InvalidInput("an input is empty", param="input")
    encoded = encoder.tokenizer.encode([start + text for text in texts.values()], truncate=truncate)
    found = dict(zip(texts, encoded, strict=True))
    return [
        found[number] if isinstance(entry, str) else encoder.tokenizer.check_ids(entry, truncate=truncate)
        for number, entry in enumerate(body.input)
    ]


def rounded(vectors: NDArray[np.float32]) -> list[Any]:
    """Vectors as lists of numbers with no more digits than they have."""
    written: list[Any] = np.round(vectors.astype(np.float64), DECIMALS).tolist()
    return written


def _answer(name: str, vectors: NDArray[np.float32], as_base64: bool, usage: Usage) -> Response:
    """OpenAI's document; base64 is of little-endian float32."""
    written: list[Any]
    if as_base64:
        written = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    else:
        written = rounded(vectors)
    data = [{"object": "embedding", "index": number, "embedding": entry} for number, entry in enumerate(written)]
    tokens = {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}
    return json_response({"object": "list", "data": data, "model": name, "usage": tokens})
