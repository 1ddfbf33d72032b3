"""Announcements over real multicast, on the loopback interface."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from zeroconf import Zeroconf

from edgeai.discovery.addresses import AddressWatch, is_wildcard, network_addresses
from edgeai.discovery.announce import Announcement, announced, announcing, free_name
from edgeai.discovery.browse import Board, ask, discover
from edgeai.discovery.names import host_label
from tests.fixtures.patience import eventually

HERE = ("127.0.0.1",)
ELSEWHERE = ("127.0.0.2",)


@pytest.fixture
def health() -> object:
    """A server that says how it fares."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": "ok", "models": ["tiny"], "running": 2, "waiting": 1}).encode()
            self.send_response(200 if self.path == "/health" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def found(name: str) -> list[Board]:
    return [board for board in discover(1.5, interfaces=HERE) if board.name == name]


def test_a_server_is_found_with_its_models_and_load(health: int) -> None:
    with announced(Announcement("edgeai-test-found", health, HERE, {"version": "1.2"})) as name:
        assert name == "edgeai-test-found"
        (board,) = found(name)
    assert (board.url, board.version) == (f"http://127.0.0.1:{health}", "1.2")
    assert (board.state, board.models, board.running, board.waiting) == ("busy", ("tiny",), 2, 1)


def test_a_server_that_left_is_not_found() -> None:
    with announced(Announcement("edgeai-test-gone", 9, HERE)):
        assert len(found("edgeai-test-gone")) == 1
    assert found("edgeai-test-gone") == []


def test_a_server_that_does_not_answer_is_listed_so() -> None:
    with announced(Announcement("edgeai-test-dead", 9, HERE)):
        (board,) = found("edgeai-test-dead")
    assert board.state.startswith("does not answer:")
    assert board.models == ()


def test_two_boards_of_one_name_are_told_apart() -> None:
    with announced(Announcement("edgeai-test-twin", 9, HERE)) as first:
        zeroconf = Zeroconf(interfaces=list(HERE))
        try:
            assert free_name(zeroconf, "edgeai-test-twin", ELSEWHERE) == "edgeai-test-twin-2"
            assert free_name(zeroconf, "edgeai-test-twin", ELSEWHERE, "b7c1") == "edgeai-test-twin-b7c1"
            assert free_name(zeroconf, "edgeai-test-twin", HERE) == first == "edgeai-test-twin"
        finally:
            zeroconf.close()


def test_its_name_leads_to_its_address() -> None:
    from zeroconf import AddressResolver

    with announced(Announcement("edgeai-test-name", 9, HERE)):
        zeroconf = Zeroconf(interfaces=list(HERE))
        try:
            resolver = AddressResolver("edgeai-test-name.local.")
            assert resolver.request(zeroconf, 3000)
            assert resolver.parsed_addresses() == list(HERE)
        finally:
            zeroconf.close()


def test_a_machine_without_a_network_waits_for_one() -> None:
    with announced(Announcement("edgeai-test-alone", 9, ())) as name:
        assert name is None
    with announcing(Announcement("edgeai-test-alone", 9, HERE)):  # in a thread: by and by
        assert any(len(found("edgeai-test-alone")) == 1 for _ in range(40))
    assert found("edgeai-test-alone") == []


def test_an_address_that_is_not_ours_is_reported_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with announcing(Announcement("edgeai-test-wrong", 9, ("192.0.2.1",))):  # RFC 5737: nobody's
        assert eventually(lambda: "cannot be announced" in caplog.text)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Clinic No. 2", "clinic-no-2"),
        ("pi.local", "pi"),
        ("--", "edgeai"),
        ("école", "cole"),
        ("x" * 80, "x" * 63),
        ("中文", "edgeai"),
    ],
)
def test_names_become_host_names(name: str, label: str) -> None:
    assert host_label(name) == label


def test_a_server_on_all_addresses_follows_them() -> None:
    assert Announcement.of("a", "0.0.0.0", 1, {}).addresses is None
    assert Announcement.of("a", "::", 1, {}).addresses is None
    assert Announcement.of("a", "10.0.0.1", 1, {}).addresses == ("10.0.0.1",)
    assert not is_wildcard("127.0.0.1")
    assert not any(address.startswith(("127.", "fe80:")) for address in network_addresses())


def test_unreachable_boards_have_a_reason() -> None:
    assert ask(Board("b", "http://127.0.0.1:9", "")).state.startswith("does not answer: ")


def test_watches_can_be_stopped() -> None:
    with AddressWatch() as watch:
        assert watch.wait(0.01)
        threading.Timer(0.05, watch.stop).start()
        assert not watch.wait(60)
        assert not watch.wait(60)  # and stay so


CHANGE = """
import subprocess
from edgeai.discovery.addresses import AddressWatch
with AddressWatch() as watch:
    assert not watch._selector.select(0)
    subprocess.run(["ip", "addr", "add", "127.1.2.3/8", "dev", "lo"], check=True)
    assert watch._selector.select(60), "nobody told of the new address"
    assert watch.wait(60)
print("told")
"""


def test_the_kernel_tells_of_new_addresses() -> None:
    """In a network of its own, which not every system lets us have."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*alone, "ip", "link"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system gives no network namespaces, or has no `ip`")
    told = subprocess.run([*alone, sys.executable, "-c", CHANGE], capture_output=True, text=True, check=False)
    assert told.stdout == "told\n", told.stderr


def test_the_name_that_is_announced_is_told() -> None:
    told: list[str | None] = []
    with (
        announced(Announcement("edgeai-test-told", 9, ELSEWHERE)),
        announcing(Announcement("edgeai-test-told", 9, HERE, suffix="b7c1"), told.append),
    ):
        assert eventually(lambda: bool(told))
    assert told == ["edgeai-test-told-b7c1"]
