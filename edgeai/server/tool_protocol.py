"""What clients say about tools, and of calls in the history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgeai.server.api_model import ApiModel

NAME = r"^[a-zA-Z0-9_.-]{1,64}$"


class FunctionDefinition(ApiModel):
    """A function by name, with the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(ApiModel):
    """A tool; there is only one kind."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class FunctionCall(ApiModel):
    """A call that was made; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(ApiModel):
    """A call with the id that its result will name."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
