"""`edgeai keys`."""

from __future__ import annotations

from pathlib import Path

from edgeai.keys.store import KeyStore
from tests.cli.conftest import Cli


def test_a_key_s_life(cli: Cli, home: Path) -> None:
    made = cli("keys", "create", "phone", "--scope", "chat", "--tokens-per-day", "1000", "--days", "3")
    secret = made.out.strip()
    store = KeyStore(home)
    key = store.verify(secret)
    assert key is not None
    assert (key.name, key.scopes, key.tokens_per_day) == ("phone", ("chat",), 1000)
    assert secret not in made.err
    listed = cli("keys", "list")
    assert f"{key.id}  phone  chat  1000 tokens/day  until " in listed.out
    rotated = cli("keys", "rotate", "phone", "--json").document
    assert store.verify(secret) is None
    assert store.verify(rotated["key"]) is not None
    assert not {"salt", "digest"} & rotated.keys()
    assert cli("keys", "revoke", key.id).code == 0
    assert store.verify(rotated["key"]) is None
    assert cli("keys", "list", "--json").document == {"keys": []}


def test_mistakes(cli: Cli) -> None:
    assert "there is no scope 'cook'" in cli("keys", "create", "phone", "--scope", "cook").err
    assert "there is no key 'phone'" in cli("keys", "revoke", "phone").err
    assert cli("keys", "create", "phone").code == 0
    assert "already" in cli("keys", "create", "phone").err


def test_an_expired_key_is_listed_as_such(cli: Cli) -> None:
    cli("keys", "create", "phone", "--days", "0")
    assert "expired" in cli("keys", "list").out
