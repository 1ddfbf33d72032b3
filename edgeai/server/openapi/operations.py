"""What every endpoint is for, what it answers with, and how it may refuse."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from edgeai.server.openapi import documents as d

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"

WRONG = (400,)
BODY = (400, 408, 413, 415)  # for all that read a body
MODEL = (404, 429, 503, 507)  # for all that use a model
WRITING = (*BODY, *MODEL, 504)


@dataclass(frozen=True, slots=True)
class Operation:
    """`media` are the content types of an answer; the first is that of `answer`, of which None is anything at all."""

    summary: str
    answer: type[BaseModel] | None
    refusals: tuple[int, ...] = ()
    media: tuple[str, ...] = (JSON,)
    unwell: type[BaseModel] | None = None  # a 503 that is no refusal but what was asked for


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("post", "/v1/chat/completions"): Operation("answer a conversation", d.ChatCompletion, WRITING, (JSON, EVENTS)),
    ("post", "/v1/responses"): Operation(
        "answer a conversation, in OpenAI's newer words", d.Response, WRITING, (JSON, EVENTS)
    ),
    ("post", "/v1/completions"): Operation("continue a text", d.Completion, WRITING, (JSON, EVENTS)),
    ("post", "/v1/embeddings"): Operation("texts to vectors", d.Embeddings, (*BODY, *MODEL)),
    ("post", "/v1/rerank"): Operation("documents by how well they answer a query", d.Ranking, (*BODY, *MODEL)),
    ("post", "/tokenize"): Operation("a text or a chat as token ids", d.Tokens, (*BODY, *MODEL)),
    ("post", "/detokenize"): Operation("token ids as text", d.Prompt, (*BODY, *MODEL)),
    ("get", "/v1/models"): Operation("the models and their adapters", d.Models),
    ("get", "/v1/models/{name}"): Operation("one of them", d.Model, (404,)),
    ("post", "/v1/files"): Operation("upload a file for batches", d.File, (*BODY, 507)),
    ("get", "/v1/files"): Operation("the files, and what batches wrote", d.Files, WRONG),
    ("get", "/v1/files/{file_id}"): Operation("one of them", d.File, (404,)),
    ("get", "/v1/files/{file_id}/content"): Operation("what is in it", None, (404,), ("application/octet-stream",)),
    ("delete", "/v1/files/{file_id}"): Operation("remove it", d.Deleted, (404,)),
    ("post", "/v1/batches"): Operation("answer a file of requests when nobody else waits", d.Batch, (*BODY, 404, 507)),
    ("get", "/v1/batches"): Operation("the batches", d.Batches, WRONG),
    ("get", "/v1/batches/{batch_id}"): Operation("how far one is", d.Batch, (404,)),
    ("post", "/v1/batches/{batch_id}/cancel"): Operation("stop it", d.Batch, (404, 415)),
    ("get", "/bundles"): Operation("the models that other boards may import", d.Bundles),
    ("get", "/bundles/{name}"): Operation(
        "one of them as a signed bundle, or a range of it", None, (404, 416), ("application/octet-stream",)
    ),
    ("get", "/health"): Operation("whether the server lives, also while a long prompt is read", d.Health),
    ("get", "/health/live"): Operation("503 when the server should be started again", d.Verdict, unwell=d.Verdict),
    ("get", "/health/ready"): Operation("503 while it takes no requests", d.Verdict, unwell=d.Verdict),
    ("get", "/status"): Operation("counts, memory, temperature, load: what the page shows", d.Status),
    ("get", "/metrics"): Operation("figures for Prometheus", None, (), ("text/plain",)),
    ("post", "/api/chat"): Operation("Ollama's chat", d.OllamaChat, WRITING, (JSON, LINES)),
    ("post", "/api/generate"): Operation("Ollama's completion", d.OllamaGenerated, WRITING, (JSON, LINES)),
    ("post", "/api/embed"): Operation("Ollama's vectors", d.OllamaVectors, (*BODY, *MODEL)),
    ("post", "/api/embeddings"): Operation("the same, one text at a time", d.OllamaVector, (*BODY, *MODEL)),
    ("get", "/api/tags"): Operation("the models as Ollama lists them", d.OllamaModels),
    ("get", "/api/ps"): Operation("those in memory", d.OllamaModels),
    ("post", "/api/show"): Operation("all about one", d.OllamaModel, (*BODY, 404)),
    ("get", "/api/version"): Operation("whose API this is, and whose server", d.OllamaVersion),
    ("post", "/api/pull"): Operation("whether a model is there", d.OllamaDone, (*BODY, 404), (JSON, LINES)),
    ("post", "/api/push"): Operation("refused: nothing leaves the device", None, BODY),
    ("post", "/api/create"): Operation("refused: models are made at the command line", None, BODY),
    ("post", "/api/copy"): Operation("give a model one more name", None, (*BODY, 404, 507)),
    ("delete", "/api/delete"): Operation("remove such a name", None, (*BODY, 404)),
}
