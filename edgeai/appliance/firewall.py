"""A board's firewall lets nothing out that was not asked for. A command of root's asks: for one address, while it runs
(`images/overlay/etc/nftables.conf`, the set `asked`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edgeai.errors import InvalidInput

RULES = Path("/etc/nftables.conf")
TABLE = "inet edgeai"
_MARK = f"table {TABLE} "
_LONGEST = "1d"  # if the command is killed, the kernel forgets the address by then
_PORTS = {"http": 80, "https": 443}


@contextlib.contextmanager
def let_through(url: str, rules: Path = RULES) -> Iterator[None]:
    """While it lasts, connections to the host and port of `url` are let out. On machines that are no boards: nothing.

    Raises `InvalidInput` for a host's name, which nobody could look up, and for anybody but root.
    """
    if not _is_board(rules):
        yield
        return
    element = _element(url)
    _nft("add", element, f" timeout {_LONGEST}")
    try:
        yield
    finally:
        _nft("delete", element)


def _is_board(rules: Path) -> bool:
    try:
        return _MARK in rules.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def _element(url: str) -> str:
    parts = urlsplit(url)
    try:
        address = ipaddress.IPv4Address(parts.hostname or "")
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise InvalidInput(
            f"a board looks up no names, and {url!r} has no IPv4 address",
            "name the address, such as http://192.168.1.5:8080/NAME.bundle",
        ) from None
    return f"{address} . {port}"


def _nft(verb: str, element: str, rest: str = "") -> None:
    command = ["nft", f"{verb} element {TABLE} asked {{ {element}{rest} }}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidInput(
            f"the firewall refused to let {element} through: {done.stderr.strip()[:300]}",
            "only root may ask it to: ssh root@BOARD",
        )
