"""Pages from elsewhere: names that were rebound, origins that are not let in, headers that keep a page to itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edgeai.config import ServerSettings
from edgeai.server.browsers import HostNames
from tests.fixtures.patience import get, post
from tests.server.guarded import guard_of, guarded
from tests.server.scripted import ScriptedModel
from tests.server.serving import Served, serving
from tests.server.test_errors import refusal

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
FRIEND = "https://friend.example"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(ScriptedModel()) as server:
        yield server


@pytest.fixture(scope="module")
def friendly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that lets the pages of one origin in, and has another name."""
    home = tmp_path_factory.mktemp("home")
    options = {"cors_origin": (FRIEND,), "hostname": ("clinic.example",)}
    with guarded(home, listening="127.0.0.1", **options) as server:
        yield server


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:1", "localhost."])
def test_names_of_this_machine(served: Served, host: str) -> None:
    assert get(served.url, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.5", "", "[", "a@localhost"]
)
def test_a_rebound_name_is_refused(served: Served, host: str) -> None:
    for answer in (
        get(served.url, headers={"host": host}),
        post(served.url + CHAT, json=BODY, headers={"host": host}),
    ):
        assert refusal(answer, 403)["code"] == "forbidden"


def test_without_a_name_it_was_no_browser(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port or 0)) as plain:
        plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert plain.recv(100).startswith(b"HTTP/1.1 200")


def test_names_on_a_network() -> None:
    names = HostNames("192.0.2.1", ["Clinic.example"], "Room No. 5")
    mine = socket.gethostname().lower().partition(".")[0]
    for host in (
        "localhost:8080",
        "192.168.1.5:8080",
        "[fe80::1%eth0]:8080",
        mine,
        f"{mine}.local",
        "clinic.EXAMPLE",
        "room-no-5-2.local",
    ):
        assert names.accepts(host), host
    for host in ("evil.example", "evil.local", "192.168.1.5.evil.example", "1.2.3", ""):
        assert not names.accepts(host), host


def test_other_names_by_setting(friendly: Served) -> None:
    assert get(friendly.url, headers={"host": "clinic.example:80"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", ""]
)
def test_pages_from_elsewhere_may_not_ask(served: Served, origin: str) -> None:
    asked = len(served.model.seen)
    answer = post(served.url + CHAT, json=BODY, headers={"origin": origin})
    refusal(answer, 403)
    assert "access-control-allow-origin" not in answer.headers
    assert len(served.model.seen) == asked
    ahead = {"origin": origin, "access-control-request-method": "POST"}
    refusal(httpx.options(served.url + CHAT, headers=ahead), 403)


def test_the_server_s_own_page_may_ask(served: Served) -> None:
    assert post(served.url + CHAT, json=BODY, headers={"origin": served.url}).status_code == 200


def test_origins_that_are_let_in(friendly: Served) -> None:
    ahead = {
        "origin": FRIEND,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    preflight = httpx.options(friendly.url + CHAT, headers=ahead)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == FRIEND
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for body, status in ((BODY, 200), ({}, 400)):  # refusals can be read as well
        answer = post(friendly.url + CHAT, json=body, headers={"origin": FRIEND})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.headers["vary"] == "origin"
    refusal(post(friendly.url + CHAT, json=BODY, headers={"origin": "https://evil.example"}), 403)


def test_every_answer_has_headers_of_safety(served: Served) -> None:
    answers = [
        get(served.url),
        get(served.url + "/health"),
        get(served.url + "/nothing"),
        post(served.url + CHAT, json=BODY),
        post(served.url + CHAT, json={**BODY, "stream": True}),
        get(served.url, headers={"host": "evil.example"}),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in answer.headers


def test_a_guard_follows_the_configuration(tmp_path: Path) -> None:
    guard = guard_of(ServerSettings(), tmp_path, "127.0.0.1")
    headers = {"host": "clinic.example", "origin": FRIEND}
    with serving(ScriptedModel(), guard=guard) as server:
        refusal(get(f"{server.url}/health", headers=headers), 403)
        guard.follow(ServerSettings(cors_origin=(FRIEND,), hostname=("clinic.example",)))
        assert get(f"{server.url}/health", headers=headers).status_code == 200
        guard.follow(ServerSettings())
        refusal(get(f"{server.url}/health", headers=headers), 403)
