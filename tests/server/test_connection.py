"""Connections that are slow, silent, endless or not HTTP, each over a real socket."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeai.config import ServerSettings
from edgeai.keys.store import KeyStore
from edgeai.server.admission import Admission
from edgeai.server.connection import UNWANTED_BYTES, Deadlines
from edgeai.server.listening import listen
from tests.fixtures.patience import PATIENCE, get
from tests.server.guarded import guarded
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, serving

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
BODY = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    """A connection that nobody speaks HTTP on."""
    with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port or 0), timeout=PATIENCE) as plain:
        yield plain


def until_closed(plain: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    received = b""
    try:
        while part := plain.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def answers(plain: socket.socket, count: int) -> list[bytes]:
    """That many answers to `GET /health`, each with its head."""
    received = b""
    while received.count(b'"status":"ok"') < count:
        part = plain.recv(65536)
        assert part, received
        received += part
    return received.split(b"HTTP/1.1 ")[1:]


def refused(raw: bytes, status: int) -> Any:
    """The error in an answer that was the last of its connection."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), raw
    assert b"connection: close" in head.lower()
    return json.loads(body)["error"]


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    """A server that waits for heads no longer than a third of a second."""
    with serving(ScriptedModel(), deadlines=Deadlines(head=0.3)) as served:
        yield served


def test_half_a_head_is_not_waited_for(hasty: Served) -> None:
    with connected(hasty) as plain:
        plain.sendall(HEALTH[:-2])
        assert refused(until_closed(plain), 408)["code"] == "request_timeout"


def test_a_head_that_trickles_is_not_waited_for(hasty: Served) -> None:
    with connected(hasty) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(1000):
                plain.sendall(b"a: b\r\n")
                time.sleep(0.02)


def test_half_a_head_after_a_request_is_not_waited_for(hasty: Served) -> None:
    with connected(hasty) as plain:
        plain.sendall(HEALTH)
        answers(plain, 1)
        plain.sendall(HEALTH[:20])
        refused(until_closed(plain), 408)


def test_silence_is_ended_without_a_word(hasty: Served) -> None:
    with connected(hasty) as plain:
        assert until_closed(plain) == b""


def test_a_connection_may_rest_between_requests(hasty: Served) -> None:
    with connected(hasty) as plain:
        for _ in range(2):
            plain.sendall(HEALTH)
            answers(plain, 1)
            time.sleep(0.5)


def test_bodies_have_their_time(tmp_path: Path) -> None:
    with guarded(tmp_path, listening="127.0.0.1", body_seconds=0.5) as served:
        with connected(served) as plain:
            plain.sendall(POST + b"content-length: 100\r\n\r\n{")
            assert refused(until_closed(plain), 408)["code"] == "request_timeout"
        with connected(served) as plain:  # slow, but it goes on
            padding = b" " * 8192
            plain.sendall(POST + b"content-length: %d\r\n\r\n" % (len(BODY) + 4 * len(padding)))
            for part in (*[padding] * 4, BODY):
                plain.sendall(part)
                time.sleep(0.25)
            assert plain.recv(15) == b"HTTP/1.1 200 OK"
        assert served.eventually(lambda: len(served.server.server_state.tasks) == 0)


def test_a_reader_that_stops_is_given_up() -> None:
    script = Script(text="x" * 20_000, rows=1)
    with (
        serving(ScriptedModel(script), deadlines=Deadlines(stall=0.5)) as served,
        socket.socket() as reader,
    ):
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", httpx.URL(served.url).port or 0))
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 30_000})
        reader.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body.encode())
        assert served.eventually(lambda: served.model.generated > 0)
        assert served.eventually(lambda: not served.server.server_state.connections)
        assert served.eventually(lambda: not served.server.server_state.tasks)


def test_the_system_gives_up_who_reads_nothing() -> None:
    admission = Admission(ServerSettings(stall_seconds=1))
    with listen("127.0.0.1", 0) as listener, socket.socket() as reader:
        listener.admission = admission
        reader.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            with pytest.raises(OSError, match="timed out") as raised:
                while True:
                    accepted.sendall(b"x" * 65536)
            assert raised.value.errno is not None  # the system's timeout, not Python's


def test_a_body_after_its_answer(tmp_path: Path) -> None:
    """A refused client may finish a short body and go on; one that sends for ever is cut off."""
    with guarded(tmp_path) as served:
        with connected(served) as plain:
            plain.sendall(POST + b"content-length: 1000\r\n\r\n")
            assert plain.recv(12) == b"HTTP/1.1 401"
            plain.sendall(b" " * 1000 + HEALTH)
            answers(plain, 1)
        with connected(served) as plain:
            plain.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
            assert plain.recv(12) == b"HTTP/1.1 401"
            with pytest.raises(OSError):
                for _ in range(64 * UNWANTED_BYTES // 60_000):
                    plain.sendall(b"1\r\nx\r\n" * 10_000)
        assert served.eventually(lambda: len(served.server.server_state.tasks) == 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n", 400),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\na" + b"a" * 40_000, 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 10_000, 431),
        (b"GET /" + b"a" * 40_000, 431),
    ],
)
def test_what_is_not_http(hasty: Served, raw: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    with connected(hasty) as plain:
        plain.sendall(raw)
        head = until_closed(plain)
    assert head.startswith(b"HTTP/1.1 %d " % status), head[:200]
    assert b"nosniff" in head
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_that_is_not_http(hasty: Served, caplog: pytest.LogCaptureFixture) -> None:
    with connected(hasty) as plain:
        plain.sendall(POST + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n")
        refused(until_closed(plain), 400)
    assert get(hasty.url + "/health").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_noise_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Requests with bytes changed, doubled, dropped or cut: whatever comes of it, the server goes on, and calmly."""
    chance = random.Random(7)
    whole = POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY + HEALTH
    with serving(ScriptedModel(), deadlines=Deadlines(head=0.2)) as served:
        for _ in range(150):
            noise = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                place = chance.randrange(len(noise))
                end = place + chance.randint(0, 4)
                noise[place:end] = chance.choice(
                    [b"", chance.randbytes(3), bytes(noise[place:end]) * 9, b"\r\n", b"\0"]
                )
            with connected(served) as plain:
                plain.sendall(noise[: chance.randint(1, len(noise))])
                plain.shutdown(socket.SHUT_WR)
                until_closed(plain)
        assert get(f"{served.url}/health").status_code == 200
        assert served.eventually(lambda: not served.server.server_state.tasks)
    assert not [record for record in caplog.records if record.exc_info]


def test_requests_that_do_not_wait_for_answers() -> None:
    model = ScriptedModel(Script(text="x", prefill=1.0))
    with serving(model) as served, connected(served) as plain:
        plain.sendall(HEALTH * 50)
        assert len(answers(plain, 50)) == 50
        plain.sendall(POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY + HEALTH * 3000)
        assert served.eventually(lambda: model.running == 1)
        (connection,) = served.server.server_state.connections
        assert len(connection.conn.trailing_data[0]) <= 300 << 10  # one reading of what has come, not all of it
        assert len(answers(plain, 3000)) >= 3000


@pytest.mark.parametrize("admission", [None, Admission(ServerSettings())])
def test_nothing_waits_to_be_sent(admission: Admission | None) -> None:
    """The parts of an answer leave at once; systems that wait for more to send with them wait for 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.admission = admission
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_there_are_no_more_connections_than_allowed() -> None:
    admission = Admission(ServerSettings(max_connections=3))
    with serving(ScriptedModel(), admission=admission) as served:
        with connected(served) as first, connected(served), connected(served):
            assert served.eventually(lambda: admission.open == 3)
            for _ in range(5):
                with connected(served) as one_more:
                    assert until_closed(one_more) == b""
            first.sendall(HEALTH)
            answers(first, 1)
        assert served.eventually(lambda: admission.open == 0)
        assert admission.turned_away == 5
        assert get(served.url + "/health").status_code == 200


def test_connections_of_one_address() -> None:
    admission = Admission(ServerSettings(max_connections=10, connections_per_address=2))
    groups = [admission.enter("192.0.2.1") for _ in range(3)]
    assert groups == ["192.0.2.1", "192.0.2.1", None]
    assert admission.enter("::ffff:192.0.2.1") is None  # the same, by another name
    assert [admission.enter(f"2001:db8::{number}") for number in range(3)] == ["2001:db8::", "2001:db8::", None]
    assert admission.enter("2001:db8:0:1::1") is not None
    admission.leave("192.0.2.1")
    assert admission.enter("192.0.2.1") is not None
    assert [admission.enter("127.0.0.1") for _ in range(6)].count(None) == 1  # as many as there is room for
    admission.follow(ServerSettings(max_connections=11))
    assert admission.enter("::1") is not None


def test_keys_are_checked_before_bodies(tmp_path: Path) -> None:
    """Nobody without a key can make the server hold or parse anything."""
    _, secret = KeyStore(tmp_path).add("phone")
    with guarded(tmp_path) as served, connected(served) as plain:
        plain.sendall(POST + b"content-length: 100000000\r\n\r\n")
        assert plain.recv(12) == b"HTTP/1.1 401"
    with guarded(tmp_path) as served, connected(served) as plain:
        head = POST + b"authorization: Bearer %s\r\ncontent-length: 100000000\r\n\r\n" % secret.encode()
        plain.sendall(head)
        assert plain.recv(12) == b"HTTP/1.1 413"
