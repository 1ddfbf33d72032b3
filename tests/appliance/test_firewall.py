"""What a board's firewall is asked to let through, and when it is closed again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.appliance.firewall import let_through
from edgeai.errors import InvalidInput

RULES = Path(__file__).parents[2] / "images" / "overlay" / "etc" / "nftables.conf"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program that stands for nft notes what it was told."""
    notes = tmp_path / "asked"
    program = tmp_path / "nft"
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{notes}\n[ ! -e {tmp_path}/refused ] || {{ echo "not permitted" >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    notes.touch()
    return notes


@pytest.mark.parametrize(("url", "element"), [
    ("http://192.168.1.5/models/x.bundle", "192.168.1.5 . 80"),
    ("http://192.168.1.5:8080/x", "192.168.1.5 . 8080"),
    ("https://10.0.0.7/x", "10.0.0.7 . 443"),
])  # fmt: skip
def test_one_address_for_as_long_as_it_is_needed(asked: Path, url: str, element: str) -> None:
    with pytest.raises(KeyError), let_through(url, RULES):
        assert asked.read_text() == f"add element inet edgeai asked {{ {element} timeout 1d }}\n"
        raise KeyError
    assert asked.read_text().splitlines()[1:] == [f"delete element inet edgeai asked {{ {element} }}"]


@pytest.mark.parametrize("url", ["http://clinic.local/x", "http://[fe80::1]/x", "ftp://192.168.1.5/x", "http:///x"])
def test_what_no_board_can_reach_is_refused(asked: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="a board looks up no names"), let_through(url, RULES):
        pass
    assert not asked.read_text()


def test_a_refusal_is_told(asked: Path) -> None:
    (asked.parent / "refused").touch()
    refusal = pytest.raises(InvalidInput, match=r"192\.168\.1\.5 \. 80 through: not permitted")
    with refusal, let_through("http://192.168.1.5/x", RULES):
        pass


def test_elsewhere_nothing_is_asked(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "nftables.conf").write_text("table inet filter {\n}\n")
    for rules in (tmp_path / "none.conf", tmp_path / "nftables.conf"):
        with let_through("http://clinic.local/x", rules):
            pass
    assert not asked.read_text()


def test_the_rules_have_the_set_that_is_written_to() -> None:
    assert "ip daddr . tcp dport @asked accept" in RULES.read_text()


ADDRESSES = ("224.0.0.251", "255.255.255.255", "192.168.1.9", "10.1.2.3", "192.0.2.1", "8.8.8.8")
# As root of a network of its own: a card, a router behind it, the rules, and a datagram from one port to each address.
SEND = f"""set -e
ip link set lo up
ip link add cable type veth peer name router
ip link set router up
ip addr add 192.168.1.5/24 dev cable
ip link set cable up
ip route add default via 192.168.1.1
nft -f {RULES}
{{opened}}
exec {sys.executable} -c '
import socket
for address in {json.dumps(ADDRESSES)}:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.bind(("", {{source}}))
        try:
            one.sendto(b"x", (address, {{target}}))
            print(address)
        except PermissionError:
            pass'
"""
needs_nft = pytest.mark.skipif(
    not all(map(shutil.which, ("nft", "unshare", "ip"))), reason="the kernel's own judgement needs nft"
)
ACCESS_POINT = "nft 'add element inet edgeai udp_in { 67 }'"


def let_out(source: int, target: int, opened: str = "") -> list[str]:
    """The addresses to which the rules let a datagram out."""
    script = SEND.format(source=source, target=target, opened=opened)
    done = subprocess.run(["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@needs_nft
def test_multicast_dns_stays_in_the_building() -> None:
    assert let_out(5353, 5353) == ["224.0.0.251", "192.168.1.9", "10.1.2.3"]
    assert let_out(5000, 5353) == []


@needs_nft
def test_an_access_point_answers_those_who_ask_for_an_address() -> None:
    assert let_out(67, 68) == []
    assert "255.255.255.255" in let_out(67, 68, ACCESS_POINT)
    assert let_out(67, 53, ACCESS_POINT) == []
