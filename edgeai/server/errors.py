"""Every refusal with the right status, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

Under the paths of Ollama's API it is `{"error": message}`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from edgeai.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EdgeaiError,
    Forbidden,
    InvalidInput,
    LimitReached,
    NotFound,
    OutOfMemory,
    Overloaded,
    StateDamaged,
    TooManyRequests,
    Unauthorized,
)

CLIENT_LEFT = 499  # as nginx logs it; nobody receives it

OLLAMA_PATHS = "/api/"

log = logging.getLogger("edgeai.server")

_CODES: tuple[tuple[type[EdgeaiError], str], ...] = (
    (ContextLengthExceeded, "context_length_exceeded"),
    (InvalidInput, "invalid_value"),
    (Unauthorized, "invalid_api_key"),
    (Forbidden, "forbidden"),
    (NotFound, "model_not_found"),
    (TooManyRequests, "rate_limit_exceeded"),
    (Overloaded, "overloaded"),
    (DeadlineExceeded, "deadline_exceeded"),
    (OutOfMemory, "out_of_memory"),
)
_HTTP_CODES = {
    400: "invalid_json",
    404: "unknown_url",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    414: "request_too_large",
    431: "request_too_large",
    415: "unsupported_media_type",
    503: "overloaded",
}


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer; the type follows from the status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": _clean(message), "type": kind, "param": param and _clean(param), "code": code}}


def ollama_error(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same as Ollama's clients read it."""
    return {"error": body["error"]["message"]}


def body_for(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body in the form of the API that the path belongs to."""
    return ollama_error(body) if path.startswith(OLLAMA_PATHS) else body


def _clean(text: str) -> str:
    """What the client sent may be quoted, even text that cannot be encoded (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode()


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body for any error; what nobody foresaw, and what is not clients' business, stays in the log."""
    if isinstance(error, EdgeaiError) and not isinstance(error, StateDamaged):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "internal_error")
        param = getattr(error, "param", None)
        if isinstance(error, NotFound) and param != "model":
            code = "not_found"
        return error.status, error_body(error.status, str(error), param=param, code=code)
    log.error("request failed", exc_info=error)
    return 500, error_body(500, "the server failed at this request; its log says why", code="internal_error")


def error_response(error: Exception, path: str = "") -> JSONResponse:
    """The whole answer for an error at this path."""
    status, body = describe(error)
    return JSONResponse(body_for(path, body), status, _headers(error))


def _headers(error: Exception) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Overloaded) else {}
    if isinstance(error, DeadlineExceeded) or (isinstance(error, LimitReached) and error.lasting):
        headers["x-should-retry"] = "false"  # OpenAI's clients would try again, in vain
    return headers


def http_error_response(error: HTTPException, method: str, path: str) -> JSONResponse:
    """What the framework refuses by status: unknown addresses, wrong methods, bodies that are too large."""
    message = str(error.detail)
    if error.status_code == 400:  # the framework's word for bytes that are not text and nesting without end
        message = "the body cannot be read as JSON"
    elif error.status_code == 404:
        message = f"there is nothing at {method} {path}"
    elif error.status_code == 405:
        message = f"{method} is not possible at {path}"
    body = error_body(error.status_code, message, code=_HTTP_CODES.get(error.status_code))
    return JSONResponse(body_for(path, body), error.status_code, error.headers)


def validation_response(problems: Sequence[Mapping[str, Any]], path: str = "") -> JSONResponse:
    """The first of pydantic's findings, named as the API names it; all of them would repeat one mistake."""
    return JSONResponse(body_for(path, _invalid(problems[0])), 400)


def _invalid(problem: Mapping[str, Any]) -> dict[str, Any]:
    location = problem["loc"][1:] if problem["loc"][:1] == ("body",) else problem["loc"]
    if problem["type"] == "json_invalid":
        message = f"the body is not valid JSON: {problem['ctx']['error']} at character {location[0]}"
        return error_body(400, message, code="invalid_json")
    if not location:
        return error_body(400, "the body must be a JSON object", code="invalid_value")
    param = _dotted(location)
    text = str(problem["msg"]).removeprefix("Value error, ")  # pydantic's prefix to the words of our own validators
    return error_body(400, f"{param}: {text}", param=param, code="invalid_value")


def _dotted(location: Sequence[str | int]) -> str:
    """messages[0].content; pydantic marks keys of mappings by a step of its own."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location if step != "[key]")
    return "".join(steps).lstrip(".")


def install(app: FastAPI) -> None:
    """Register the handlers that give every error its shape."""

    @app.exception_handler(EdgeaiError)
    async def deliberate(request: Request, error: EdgeaiError) -> JSONResponse:
        return error_response(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def by_status(request: Request, error: HTTPException) -> JSONResponse:
        return http_error_response(error, request.method, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return validation_response(error.errors(), request.url.path)

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)
