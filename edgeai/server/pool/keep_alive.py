"""`keep_alive` of requests: how long a model stays in memory afterwards, as Ollama writes it: "5m", 300, 0, -1."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from edgeai.config import parse_duration
from edgeai.errors import InvalidInput


def _optional(value: Any) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None


# Seconds; None leaves it to the server.
KeepAlive = Annotated[
    Annotated[float, Field(allow_inf_nan=True)] | None,
    BeforeValidator(_optional),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
]
