"""`POST /v1/rerank`: documents in the order of how well they answer a query. Also at /rerank and /v2/rerank."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.server.encoder_protocol import RerankRequest
from edgeai.server.generation import Usage
from edgeai.server.json_response import json_response
from edgeai.server.model_pool import ModelPool

ADDRESSES = ("/v1/rerank", "/rerank", "/v2/rerank")  # Jina's, vLLM's, Cohere's


def router(models: ModelPool) -> APIRouter:
    """The endpoint over the rerankers of `models`."""
    routes = APIRouter()

    async def rerank(body: RerankRequest, request: Request) -> Response:
        from edgeai.encoder.encoder import relevance
        from edgeai.encoder.ranking import ranked

        model = await models.encoder(body.model, "reranker", request, body.keep_alive)
        sequences = await asyncio.to_thread(
            model.encoder.tokenizer.encode_pairs, body.query, body.documents, truncate=body.truncate is not False
        )
        scores = relevance(await model.compute(sequences))
        usage = Usage(prompt=sum(map(len, sequences)))
        request.state.usage = usage
        results = [
            _result(place, score, body.documents[place] if body.return_documents else None)
            for place, score in ranked(scores, body.top_n)
        ]
        tokens = {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}
        return json_response(
            {"id": f"rerank-{secrets.token_hex(12)}", "model": model.name, "results": results, "usage": tokens}
        )

    for address in ADDRESSES:
        routes.add_api_route(
            address, rerank, methods=["POST"], response_model=None, include_in_schema=address == ADDRESSES[0]
        )
    return routes


def _result(place: int, score: float, document: str | None) -> dict[str, Any]:
    shown = {} if document is None else {"document": {"text": document}}
    return {"index": place, "relevance_score": score, **shown}
