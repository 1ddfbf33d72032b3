"""A batch: its requests, and how far it has come, as OpenAI's API describes it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled"]
ENDED: frozenset[Status] = frozenset({"failed", "completed", "cancelled"})
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings")
MOST_REQUESTS = 50_000
MOST_ERRORS = 100  # of one file that are told


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line of the input, counted from 1."""

    line: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line of the input."""

    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The state of a batch. `times` says when each status began, in seconds since 1970."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    output_file_id: str  # decided at once, so that a batch that is finished twice, after a crash, has one output
    error_file_id: str
    window: str
    metadata: dict[str, str] | None
    status: Status = "validating"
    times: dict[str, int] = field(default_factory=dict)
    errors: tuple[LineError, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0

    @classmethod
    def new(cls, owner: str, endpoint: str, input_file_id: str, **options: Any) -> Self:
        """A batch that has just been asked for."""
        made = cls(f"batch_{secrets.token_hex(12)}", owner, endpoint, input_file_id, **options)
        return replace(made, times={"created": int(time.time())})

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """What `as_json` wrote."""
        values = json.loads(text)
        errors = tuple(LineError(**error) for error in values.pop("errors"))
        return cls(**values, errors=errors)

    def as_json(self) -> bytes:
        """All of it, for the disk."""
        return json.dumps(asdict(self)).encode()

    def at(self, status: Status, **changes: Any) -> Self:
        """The batch as its next status begins."""
        return replace(self, status=status, times={**self.times, status: int(time.time())}, **changes)

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's batch object. Files are named once they are there."""
        ended = self.status in ("completed", "cancelled")
        stamps = ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": self._errors(),
            "input_file_id": self.input_file_id,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output_file_id if ended and self.completed else None,
            "error_file_id": self.error_file_id if ended and self.failed else None,
            "created_at": self.times["created"],
            **{f"{name}_at": self.times.get(name) for name in stamps},
            "expires_at": None,  # never: a board's clock is not to be trusted with somebody's work
            "expired_at": None,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
        }

    def _errors(self) -> dict[str, Any] | None:
        data = [{"code": e.code, "message": e.message, "param": None, "line": e.line} for e in self.errors]
        return {"object": "list", "data": data} if data else None


def parse(lines: Callable[[], Iterator[bytes]], endpoint: str) -> tuple[int, tuple[LineError, ...]]:
    """The number of requests in the input, and what is wrong with it."""
    errors: list[LineError] = []
    seen: set[str] = set()
    count = 0
    for number, line in enumerate(lines(), 1):
        found = _check(line, endpoint, seen)
        count += 1
        if found is not None:
            errors.append(LineError(number, *found))
        if len(errors) == MOST_ERRORS or count > MOST_REQUESTS:
            break
    if count > MOST_REQUESTS:
        errors.append(LineError(None, "too_many_requests", f"a batch has at most {MOST_REQUESTS} requests"))
    elif not count:
        errors.append(LineError(None, "empty_file", "the input file has no requests"))
    return count, tuple(errors)


def _check(line: bytes, endpoint: str, seen: set[str]) -> tuple[str, str] | None:
    """Code and message of what is wrong with a line, None if nothing is; `seen` are the ids before it."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return "invalid_json_line", "this line is not valid JSON"
    if not isinstance(request, dict):
        return "invalid_request", "this line is no JSON object"
    custom_id, body = request.get("custom_id"), request.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        return "missing_required_parameter", "custom_id is missing or no text"
    if custom_id in seen:
        return "duplicate_custom_id", f"the custom_id {custom_id!r} stands twice"
    seen.add(custom_id)
    if request.get("method") != "POST":
        return "invalid_method", "the method must be POST"
    if request.get("url") != endpoint:
        return "mismatched_endpoint", f"the url must be the batch's endpoint, {endpoint}"
    if not isinstance(body, dict):
        return "missing_required_parameter", "body is missing or no JSON object"
    return ("invalid_request", "answers of a batch cannot be streamed") if body.get("stream") else None


def requests(lines: Iterator[bytes]) -> Iterator[BatchRequest]:
    """The requests of an input that `parse` found nothing wrong with."""
    for line in lines:
        values = json.loads(line)
        yield BatchRequest(values["custom_id"], values["body"])
