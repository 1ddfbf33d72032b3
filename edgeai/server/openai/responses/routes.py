"""`POST /v1/responses`."""

from __future__ import annotations

import time
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai.chat import begin, prepare
from edgeai.server.openai.responses.protocol import ResponsesRequest
from edgeai.server.openai.responses.reply import ResponseReply
from edgeai.server.openai.responses.translate import chat_request, own_words
from edgeai.server.openai.terms import terms_of
from edgeai.server.streaming import TYPED_EVENTS, EventStream, all_documents, unless_disconnected


class ResponseStream(EventStream):
    """Errors before the first event come when the endpoint has returned."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with own_words():
            await super().__call__(scope, receive, send)


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        with own_words():
            chat = chat_request(body)
            terms = terms_of(request, chat)
            model = await models.find(body.model, request, body.keep_alive)
            wanted = await prepare(model, chat)
            generation = await begin(model, chat, wanted, metrics, arrived=arrived, terms=terms)
            request.state.usage = generation.usage
            reply = ResponseReply(model, body, wanted.parser())
            if body.stream:
                return ResponseStream(generation, reply, replace(TYPED_EVENTS, error=reply.failed))
            *_, last = await unless_disconnected(request.receive, all_documents(generation, reply))
            return JSONResponse(last["response"])

    return routes
