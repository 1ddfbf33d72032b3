"""The file of keys: private, power-safe, and seen by a running server as soon as it changes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound, StateDamaged
from edgeai.keys.store import KeyStore


def test_what_one_process_changes_another_sees(tmp_path: Path) -> None:
    server, administrator = KeyStore(tmp_path), KeyStore(tmp_path)
    assert server.verify("nonsense") is None
    key, secret = administrator.add("phone", tokens_per_day=5)
    assert server.verify(secret) == key
    _, other = administrator.rotate("phone")
    assert server.verify(secret) is None
    seen = server.verify(other)
    assert seen is not None
    assert (seen.id, seen.tokens_per_day) == (key.id, 5)
    administrator.revoke(key.id)
    assert server.verify(other) is None


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "home")
    _, secret = store.add("phone")
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert secret.rpartition("-")[2] not in store.path.read_text()


def test_keys_expire(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, old = store.add("old", expires=int(time.time()) - 1)
    _, new = store.add("new", expires=int(time.time()) + 1000)
    assert store.verify(old) is None
    assert store.verify(new) is not None


def test_names_are_unique_and_found(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, _ = store.add("phone")
    for taken in ("phone", key.id):
        with pytest.raises(InvalidInput, match="already"):
            store.add(taken)
    with pytest.raises(NotFound, match="no key 'tablet'"):
        store.revoke("tablet")
    with pytest.raises(NotFound, match="no key 'tablet'"):
        store.rotate("tablet")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": 3}', '{"keys": [{"id": "a"}]}', '{"keys": [{"scopes": 1}]}'])
def test_nobody_is_let_in_by_a_damaged_file(tmp_path: Path, text: str) -> None:
    store = KeyStore(tmp_path)
    _, secret = store.add("phone")
    assert store.verify(secret) is not None
    store.path.write_text(text)
    for _ in range(2):
        with pytest.raises(StateDamaged, match=r"keys\.json is damaged"):
            store.verify(secret)
    store.path.unlink()
    assert store.verify(secret) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is readable for root")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.add("phone")
    store.path.chmod(0)
    with pytest.raises(StateDamaged, match="Permission denied"):
        KeyStore(tmp_path).all()


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: KeyStore(tmp_path).add(f"key {number}"), range(16)))
    store = KeyStore(tmp_path)
    assert len(store.all()) == 16
    assert all(store.verify(secret) is not None for _, secret in made)
