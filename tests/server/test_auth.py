"""Keys, scopes, rates and quotas, asked over real connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.datastructures import Headers

from edgeai.config import ServerSettings
from edgeai.engine.terms import DEFAULT_TERMS, Terms
from edgeai.errors import LimitReached, Unauthorized
from edgeai.keys.store import KeyStore
from edgeai.server.auth import SCOPES, Client, scope_of
from tests.fixtures.patience import get, post, stream
from tests.server.guarded import guard_of, guarded
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served
from tests.server.test_errors import refusal

HELLO: Any = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    with guarded(home) as server:
        yield server


def ask(served: Served, secret: str = "", **headers: str) -> httpx.Response:
    if secret:
        headers["authorization"] = f"Bearer {secret}"
    return post(served.url + CHAT, json={"messages": HELLO}, headers=headers)


def test_without_a_key_there_is_only_the_page_and_health(served: Served) -> None:
    for path in ("/", "/health"):
        assert get(served.url + path).status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        answer = get(served.url + path)
        assert refusal(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    refusal(ask(served), 401)
    assert served.model.seen == []


@pytest.mark.parametrize("how", ["bearer", "x-api-key", "openai"])
def test_ways_to_send_a_key(served: Served, home: Path, how: str) -> None:
    _, secret = KeyStore(home).add("phone")
    if how == "openai":
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=secret)
        assert client.chat.completions.create(model="", messages=HELLO).choices[0].message.content
    elif how == "bearer":
        assert ask(served, authorization=f"bearer  {secret}").status_code == 200
    else:
        assert ask(served, **{"x-api-key": secret}).status_code == 200


def test_wrong_keys(served: Served, home: Path) -> None:
    key, secret = KeyStore(home).add("phone")
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for text in (wrong, f"sk-edgeai-{key.id}-", "any", secret + "x", "x" * 5000):
        refusal(ask(served, text), 401)
    refusal(ask(served, authorization=f"Basic {secret}"), 401)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=wrong).models.list()


def test_a_revoked_key_is_refused_at_once(served: Served, home: Path) -> None:
    store = KeyStore(home)
    _, secret = store.add("phone")
    assert ask(served, secret).status_code == 200
    store.revoke("phone")
    refusal(ask(served, secret), 401)


def test_a_damaged_file_lets_nobody_in_and_tells_clients_nothing(
    served: Served, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = KeyStore(home)
    _, secret = store.add("phone")
    store.path.write_text("{")
    assert str(home) not in json.dumps(refusal(ask(served, secret), 500))
    assert str(home) in caplog.text


def test_scopes(served: Served, home: Path) -> None:
    store = KeyStore(home)
    secrets = {scope: store.add(scope, scopes=[scope])[1] for scope in ("chat", "models", "metrics", "embed", "admin")}
    paths = {"chat": None, "models": "/v1/models", "metrics": "/metrics"}
    for scope, path in paths.items():
        for name, secret in secrets.items():
            headers = {"authorization": f"Bearer {secret}"}
            answer = ask(served, secret) if path is None else get(served.url + path, headers=headers)
            assert answer.status_code == (200 if name in (scope, "admin") else 403)
    assert (
        "is not for metrics"
        in refusal(get(served.url + "/metrics", headers={"x-api-key": secrets["chat"]}), 403)["message"]
    )


def test_every_route_has_a_scope(served: Served) -> None:
    """A path that nobody thought of needs `admin`; one that belongs there is to be named here."""
    app: Any = served.server.config.app
    paths = app.openapi()["paths"]
    assert len(paths) > 5
    managing = {f"/api/{action}" for action in ("copy", "create", "delete", "pull", "push")}
    assert {path for path in paths if scope_of(path) == "admin"} == managing
    assert {path: scope_of(path) for path in ("/v1/embeddings", "/v1/new", "/api/tags", "/api/embed", "/new")} == {
        "/v1/embeddings": "embed",
        "/v1/new": "chat",
        "/api/tags": "models",
        "/api/embed": "embed",
        "/new": "admin",
    }
    for number, (beginning, _) in enumerate(SCOPES):  # else the later one would have no effect
        assert not any(beginning.startswith(earlier) for earlier, _ in SCOPES[:number])


def test_requests_per_minute(served: Served, home: Path) -> None:
    _, secret = KeyStore(home).add("phone", requests_per_minute=3)
    answers = [ask(served, secret) for _ in range(3)]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    refused = ask(served, secret)
    assert refusal(refused, 429)["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert float(refused.headers["x-ratelimit-reset-requests"].removesuffix("s")) > 40
    _, other = KeyStore(home).add("tablet")
    assert ask(served, other).status_code == 200


def test_tokens_per_day_survive_a_restart(home: Path) -> None:
    _, secret = KeyStore(home).add("phone", tokens_per_day=60)
    with guarded(home, model=ScriptedModel(Script(text="x" * 25))) as served:
        first = ask(served, secret)
        assert first.headers["x-ratelimit-remaining-tokens"] == "60"
        used = first.json()["usage"]["total_tokens"]
        assert 60 > used > 30
        second = ask(served, secret)
        assert second.headers["x-ratelimit-remaining-tokens"] == str(60 - used)
    with guarded(home) as served:
        refused = ask(served, secret)
        assert "today's 60 tokens are used" in refusal(refused, 429)["message"]
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        with pytest.raises(openai.RateLimitError):  # and does not try for hours
            client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=secret)
            client.chat.completions.create(model="", messages=HELLO)
        assert served.model.seen == []


def test_streams_that_are_cut_count_too(home: Path) -> None:
    _, secret = KeyStore(home).add("phone", tokens_per_day=10_000)
    with guarded(home, model=ScriptedModel(Script(text="tick " * 1000, delay=0.01))) as served:
        body = {"messages": HELLO, "stream": True}
        headers = {"authorization": f"Bearer {secret}"}
        with stream("POST", served.url + CHAT, json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            for _ in range(10):
                next(lines)
        assert served.eventually(lambda: served.model.running == 0)

        def left() -> int:
            return int(get(f"{served.url}/v1/models", headers=headers).headers["x-ratelimit-remaining-tokens"])

        assert served.eventually(lambda: left() < 10_000)


def test_limits_of_addresses_where_no_key_is_wanted(home: Path) -> None:
    with guarded(home, listening="127.0.0.1", requests_per_minute=2) as served:
        assert [ask(served).status_code for _ in range(3)] == [200, 200, 429]
        assert get(served.url + "/health").status_code == 200


def test_addresses_are_counted_but_not_kept(home: Path) -> None:
    with guarded(home, listening="127.0.0.1", tokens_per_day=40) as served:
        assert [ask(served).status_code for _ in range(3)] == [200, 200, 429]
    assert not home.exists()


def test_the_engine_is_told_who_asks(home: Path) -> None:
    """The fair queue tells clients apart by this."""
    seen: list[str] = []

    class Listening(ScriptedModel):
        async def stream(self, *arguments: Any, terms: Terms = DEFAULT_TERMS, **options: Any) -> Any:
            seen.append(terms.client)
            async for chunk in super().stream(*arguments, terms=terms, **options):
                yield chunk

    key, secret = KeyStore(home).add("phone")
    with guarded(home, model=Listening()) as served:
        ask(served, secret)
    with guarded(home, model=Listening(), listening="127.0.0.1") as served:
        ask(served, **{"x-forwarded-for": "192.0.2.7"})  # which anybody may write
    assert seen == [key.id, "127.0.0.1"]


def test_requests_of_the_server_to_itself_are_for_a_client(home: Path) -> None:
    store = KeyStore(home)
    key, secret = store.add("phone", tokens_per_day=60)
    guard = guard_of(ServerSettings(), home)
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "client": None}

    def look(client: str | None) -> Client | None:
        return guard.look({**scope, "state": {"client": client} if client else {}}, Headers(raw=[]), {})

    with pytest.raises(Unauthorized, match="wants an API key"):
        look(None)
    assert look(key.id) == Client(key.id, 60, has_key=True)
    with guarded(home) as served:
        for _ in range(2):
            ask(served, secret)
    guard = guard_of(ServerSettings(), home)
    with pytest.raises(LimitReached, match="today's 60 tokens"):
        look(key.id)
    store.revoke("phone")
    with pytest.raises(Unauthorized, match="is gone"):
        look(key.id)
    open_guard = guard_of(ServerSettings(), home, "127.0.0.1")
    assert open_guard.authenticator.recall("192.0.2.1") == Client("192.0.2.1")


def test_many_threads_share_a_quota(home: Path) -> None:
    _, secret = KeyStore(home).add("phone", requests_per_minute=5)
    with guarded(home) as served:
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(ask(served, secret).status_code)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200] * 5 + [429] * 3
