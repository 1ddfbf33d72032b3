"""What clients may send to the endpoints of embedding models and rerankers. Other fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgeai.server.api_model import ApiModel
from edgeai.server.pool.keep_alive import KeepAlive
from edgeai.server.protocol import Prompt, Prompts, are_token_ids, one_prompt

MAX_INPUTS = 2048  # texts of a request, as at OpenAI
MAX_DOCUMENTS = 1000


def _inputs(value: Any) -> list[Any]:
    """A string, token ids, or a list of either, as a list of texts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError("must be a string, a list of strings, a list of token ids or a list of such lists")
    return [value] if are_token_ids(value) else [one_prompt(item) for item in value]


def _document(value: Any) -> Any:
    """Documents come as strings or as {"text": ...}."""
    if isinstance(value, dict):
        if not isinstance(value.get("text"), str):
            raise ValueError('a document is a string or an object with a "text"')
        return value["text"]
    return value


Document = Annotated[str, BeforeValidator(_document, json_schema_input_type=str | dict[str, Any])]


class EmbeddingsRequest(ApiModel):
    """Body of `POST /v1/embeddings`: OpenAI's, and what E5, BGE and others need."""

    model: str | None = None
    input: Annotated[
        list[Prompt],
        BeforeValidator(_inputs, json_schema_input_type=Prompts),
        Field(max_length=MAX_INPUTS),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: str | None = None  # query, passage, ...: the prompt to put before each text
    truncate: bool | None = None  # cut texts that are too long, instead of refusing them
    user: str | None = None
    keep_alive: KeepAlive = None


class RerankRequest(ApiModel):
    """Body of `POST /v1/rerank`, as Cohere, Jina and vLLM have it."""

    model: str | None = None
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[
        list[Document],
        Field(min_length=1, max_length=MAX_DOCUMENTS),
    ]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    truncate: bool | None = None  # documents that are too long are cut, unless this is false
    keep_alive: KeepAlive = None
