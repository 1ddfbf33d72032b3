"""A second port, and what is said at `/` of Ollama's own."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput
from edgeai.server.listening import listen, listening
from edgeai.server.ollama.root import OLLAMA_PORT, looks_for_ollama
from tests.fixtures import patience
from tests.server.scripted import ScriptedModel
from tests.server.serving import serving


def request(accept: str | None, port: int) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    scope: dict[str, Any] = {"type": "http", "headers": headers, "server": ("127.0.0.1", port)}
    return Request(scope)


@pytest.mark.parametrize(
    ("accept", "port", "looks"),
    [
        ("*/*", OLLAMA_PORT, True),
        (None, OLLAMA_PORT, True),
        ("text/html,*/*;q=0.8", OLLAMA_PORT, False),
        ("*/*", 8080, False),
        (None, 8080, False),
        ("application/json", 8080, True),
    ],
)
def test_who_looks_for_ollama(accept: str | None, port: int, looks: bool) -> None:
    assert looks_for_ollama(request(accept, port)) is looks


def test_a_second_port() -> None:
    with listening(ServerSettings(port=0, ollama_port=None)) as alone:
        assert len(alone) == 1
    with listening(ServerSettings(port=0)) as first, pytest.raises(InvalidInput, match="Address already in use"):
        taken = first[0].getsockname()[1]
        with listening(ServerSettings(port=0, ollama_port=taken)):
            pass
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with listening(ServerSettings(port=0, ollama_port=port)) as both:
        assert [each.getsockname()[1] for each in both][1:] == [port]


def test_both_ports_answer() -> None:
    with listen("127.0.0.1", 0) as second, serving(ScriptedModel(), also=[second]) as served:
        other = f"http://127.0.0.1:{second.getsockname()[1]}"
        assert {patience.get(f"{url}/api/version").status_code for url in (served.url, other)} == {200}
