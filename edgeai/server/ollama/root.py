"""What Ollama says at `/`, where this server has its page: software looks there whether Ollama runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

RUNNING = "Ollama is running"
OLLAMA_PORT = 11434


def looks_for_ollama(request: Request) -> bool:
    """Whether the page would be the wrong answer: browsers ask for HTML, and on Ollama's port only they get it."""
    accepted = request.headers.get("accept", "*/*")
    if "text/html" in accepted:
        return False
    server = request.scope.get("server")
    return (server is not None and server[1] == OLLAMA_PORT) or not ("*/*" in accepted or "text/*" in accepted)


def running() -> Response:
    """The answer to those who look."""
    return PlainTextResponse(RUNNING)
