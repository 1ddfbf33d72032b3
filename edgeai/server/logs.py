"""What the server logs, and where to: lines on standard error, as text or JSON, which systemd's journal keeps.

Lines that belong to a request have its id, which its answer has as the header `x-request-id`.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from contextvars import ContextVar
from typing import Literal

REQUEST_ID = "x-request-id"
FIELDS = ("request_id", "method", "route", "status", "seconds", "prompt_tokens", "completion_tokens")

LogFormat = Literal["text", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")


def new_id() -> str:
    """An id for a request. What a client calls it is not taken: nothing that clients send stands in the log."""
    return f"req_{secrets.token_hex(12)}"


def log_to_stderr(level: str, form: LogFormat = "text") -> None:
    """Let all that is worth `level` ("debug" to "error") be written."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name in ("edgeai", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Change what is worth writing; of the HTTP library's own messages never less than warnings."""
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("edgeai").setLevel(least)
    logging.getLogger("uvicorn.error").setLevel(max(least, logging.WARNING))


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The request's id stands at the end of the first line."""
        first, *rest = super().format(record).split("\n", 1)
        belongs_to = _id_of(record)
        return "\n".join([f"{first} {belongs_to}" if belongs_to else first, *rest])


class JsonFormatter(logging.Formatter):
    """A JSON object in a line, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC, level, message, and what is known of the request."""
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": _id_of(record) or None,
        }
        line |= {name: getattr(record, name) for name in FIELDS[1:] if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)

    converter = staticmethod(time.gmtime)  # UTC, whatever the board's time zone


def _id_of(record: logging.LogRecord) -> str:
    return getattr(record, "request_id", "") or request_id.get()
