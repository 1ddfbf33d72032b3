"""What answers look like, for the description of the API; the answers themselves are not checked against it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Json = dict[str, Any]
Count = Annotated[int, Field(ge=0)]


class ErrorDetail(BaseModel):
    """What is wrong, and with which field."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str | None


class Error(BaseModel):
    """A refusal, as OpenAI's API has it."""

    error: ErrorDetail


class OllamaError(BaseModel):
    """A refusal, as Ollama's API has it."""

    error: str


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: Count
    total_tokens: Count
    completion_tokens: Count = 0


class Generated(BaseModel):
    """What answers of language models begin with."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class AssistantMessage(BaseModel):
    """What the model says, and the calls that it makes."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: list[Json] = []


class ChatChoice(BaseModel):
    """One answer of `n`."""

    index: Count
    message: AssistantMessage
    logprobs: Json | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]


class ChatCompletion(Generated):
    """An answer to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextChoice(BaseModel):
    """One continuation of `n`."""

    index: Count
    text: str
    logprobs: Json | None
    finish_reason: Literal["stop", "length"]


class Completion(Generated):
    """Text that goes on."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class ResponseUsage(BaseModel):
    """Tokens of a response."""

    input_tokens: Count
    output_tokens: Count
    total_tokens: Count
    input_tokens_details: dict[str, Count]
    output_tokens_details: dict[str, Count]


class Response(BaseModel):
    """An answer as items: messages, thoughts, calls."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["completed", "incomplete"]
    output: list[Json]
    usage: ResponseUsage
    store: Literal[False]


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class Embeddings(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class Ranked(BaseModel):
    """A document's place in the request, and how well it answers."""

    index: Count
    relevance_score: float


class Ranking(BaseModel):
    """Documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: Usage


class Tokens(BaseModel):
    """Token ids of a text or chat."""

    count: Count
    max_model_len: Count
    tokens: list[Count]
    token_strs: list[str] | None


class Prompt(BaseModel):
    """Token ids as text."""

    prompt: str


class Model(BaseModel):
    """A name that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    kind: Literal["decoder", "embedding", "reranker"]
    max_model_len: Count
    state: str
    pinned: bool
    size: Count


class Models(BaseModel):
    """All models and adapters."""

    object: Literal["list"]
    data: list[Model]


class BundleOffer(BaseModel):
    """A model that can be imported; `size` is that of its files, in bytes."""

    id: str
    object: Literal["bundle"]
    version: str
    size: Count


class Bundles(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[BundleOffer]


class Health(BaseModel):
    """That the server lives, and how busy it is."""

    status: Literal["ok"]
    models: list[str]
    loaded: dict[str, Json]
    running: Count
    waiting: Count
    memory: Json


class Verdict(BaseModel):
    """That all is well, or what is not."""

    status: str


class Status(BaseModel):
    """What the page shows."""

    name: str
    version: str
    uptime_seconds: float
    models: list[Json]
    counts: dict[str, Count]
    memory: Json
    device: Json


class File(BaseModel):
    """A file that was uploaded, or that a batch wrote."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: int
    expires_at: None
    filename: str
    purpose: str
    status: str


class Deleted(BaseModel):
    """That it is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class Page(BaseModel):
    """A part of a list; `after` the last id follows more."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Files(Page):
    """Files, the newest last."""

    data: list[File]


class Batch(BaseModel):
    """A long job and how far it is."""

    id: str
    object: Literal["batch"]
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Literal["validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    errors: Json | None
    request_counts: dict[str, Count]
    metadata: dict[str, str] | None


class Batches(Page):
    """Batches."""

    data: list[Batch]


class OllamaWritten(BaseModel):
    """A document of an answer; the last one is `done`, and has durations in nanoseconds and counts of tokens."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    total_duration: Count = 0
    load_duration: Count = 0
    prompt_eval_count: Count = 0
    prompt_eval_duration: Count = 0
    eval_count: Count = 0
    eval_duration: Count = 0


class OllamaChat(OllamaWritten):
    """An answer to a conversation."""

    message: Json


class OllamaGenerated(OllamaWritten):
    """An answer to a prompt."""

    response: str


class OllamaVectors(BaseModel):
    """Vectors in the order of the texts."""

    model: str
    embeddings: list[list[float]]


class OllamaVector(BaseModel):
    """One vector."""

    embedding: list[float]


class OllamaModels(BaseModel):
    """Models."""

    models: list[Json]


class OllamaModel(BaseModel):
    """All about a model."""

    modelfile: str
    parameters: str
    template: str
    license: str
    details: Json
    model_info: Json
    capabilities: list[str]
    modified_at: str


class OllamaVersion(BaseModel):
    """Whose API this is, and whose server."""

    version: str
    edgeai: str


class OllamaDone(BaseModel):
    """That it is done."""

    status: Literal["success"]
