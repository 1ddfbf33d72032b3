"""What Ollama's clients send. Fields that are not named here are ignored, as Ollama does."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from edgeai.server.pool.keep_alive import KeepAlive
from edgeai.server.protocol import MAX_TOP_LOGPROBS, ApiModel

Thinking = bool | str | None


class OllamaRequest(ApiModel):
    """What all requests to a model have."""

    model: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


class WritingRequest(OllamaRequest):
    """What chats and completions share. They are streamed unless the client says otherwise."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    think: Thinking = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class OllamaFunction(ApiModel):
    """A call that was made; its arguments are an object here."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class OllamaCall(ApiModel):
    """A call in the history."""

    function: OllamaFunction


class OllamaMessage(ApiModel):
    """One turn of a chat; a tool's result names the tool."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None


class ChatBody(WritingRequest):
    """Body of `POST /api/chat`; without messages the model is only loaded, or unloaded."""

    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateBody(WritingRequest):
    """Body of `POST /api/generate`; without a prompt the model is only loaded, or unloaded."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class EmbedBody(OllamaRequest):
    """Body of `POST /api/embed`."""

    input: str | list[str]
    truncate: bool | None = None
    dimensions: int | None = None


class EmbeddingsBody(OllamaRequest):
    """Body of `POST /api/embeddings`, the older way to ask for one vector."""

    prompt: str = ""


class ShowBody(ApiModel):
    """Body of requests about one model; `name` is the older word for it."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    @property
    def wanted(self) -> str:
        return self.model or self.name or ""


class CopyBody(ApiModel):
    """Body of `POST /api/copy`."""

    source: str
    destination: str
