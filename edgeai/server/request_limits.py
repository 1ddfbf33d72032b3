"""Limits of one request: its head, the form of its body, and how long that may take to come."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 << 10  # of all names and values together
MAX_TARGET_BYTES = 4 << 10  # of path and query
MAX_BRACKETS = 200_000  # in a body: as objects and lists each takes twenty times the memory that it takes as text
_OPENING = (b"[", b"{")
# What is no JSON. Pages from elsewhere may send it without asking, but not without saying where they come from.
UPLOADS = {"/v1/files": "multipart/form-data"}
OLLAMA = "/api/"  # Ollama takes every body for JSON, and `curl -d` calls what it sends a form


def check_head(scope: Scope, headers: Headers) -> None:
    """Refuse heads without measure, compressed bodies and bodies that are not JSON. Raises `HTTPException`.

    The content type matters for safety: a web page elsewhere may send forms and plain text to a server on this network
    without asking, but not JSON. A compressed body could become any size.
    """
    if len(scope.get("raw_path") or b"") + len(scope.get("query_string", b"")) > MAX_TARGET_BYTES:
        raise HTTPException(414, f"the address is longer than {MAX_TARGET_BYTES} bytes")
    raw = scope["headers"]
    if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
        raise HTTPException(431, f"more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(415, "the body is compressed, but must be plain (leave out content-encoding)")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = UPLOADS.get(scope["path"], "application/json")
    if scope["method"] == "POST" and scope["path"].startswith(OLLAMA) and "origin" not in headers:
        _call_json(scope)
    elif scope["method"] == "POST" and kind != wanted:
        raise HTTPException(415, f"the content type is {kind or 'missing'}, but must be {wanted}")


def _call_json(scope: Scope) -> None:
    """Have the body read as JSON whatever it is called. A browser would have said which page sends it."""
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    scope["headers"] = [*kept, (b"content-type", b"application/json")]


def check_brackets(body: bytes, already: int = 0) -> int:
    """How many objects and lists a body may begin to have with this part of it. Raises `HTTPException`: 413."""
    found = already + sum(body.count(bracket) for bracket in _OPENING)
    if found > MAX_BRACKETS:
        raise HTTPException(413, f"the body has more than {MAX_BRACKETS} brackets", {"connection": "close"})
    return found
