"""What clients say about tools, and of calls in the history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-zA-Z0-9_.-]{1,64}$"


class ToolModel(BaseModel):
    """As `protocol.ApiModel`: no silent conversions."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class FunctionDefinition(ToolModel):
    """A function by name, with the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(ToolModel):
    """A tool; there is only one kind."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class FunctionCall(ToolModel):
    """A call that was made; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(ToolModel):
    """A call with the id that its result will name."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
