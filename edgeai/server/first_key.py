"""The first start on a network: a key is made, and told once to whoever sits at the terminal or owns the folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from edgeai.config import ServerSettings
from edgeai.keys.key import SCOPES, ApiKey
from edgeai.keys.store import KeyStore
from edgeai.package.durable import write_file
from edgeai.server.listening import is_loopback

NAME = "first"
FILE_NAME = "first-key.txt"


def wants_keys(settings: ServerSettings, address: str) -> bool:
    """Whether clients need a key: as the settings say, or else wherever other machines can reach the server."""
    return not is_loopback(address) if settings.auth is None else settings.auth


def prepare_keys(settings: ServerSettings, address: str, home: Path, say: Callable[[str], None]) -> None:
    """Make the first key where one is wanted and there is none; warn where the network is let in without.

    Raises `StateDamaged` for a file of keys that cannot be read.
    """
    if not wants_keys(settings, address):
        if not is_loopback(address):
            say("warning: everybody on the network may use this server, without a key")
        return
    store = KeyStore(home)
    if store.all():
        return
    key, secret = ApiKey.create(NAME, SCOPES)
    if sys.stderr.isatty():
        store.keep(key)
        say(f"The first API key, which is not shown again: {secret}")
    else:  # what is said goes to a log, where a secret must not stay
        # The file first: were the key kept before, and the power went, nobody would ever know its secret.
        write_file(home / FILE_NAME, f"{secret}\n".encode(), mode=0o600)
        store.keep(key)
        say(f"The first API key is in {home / FILE_NAME}; remove that file when you have read it")
