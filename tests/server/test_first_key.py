"""The first start: a key on a network, none on this machine, and never a secret in a log."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from edgeai.config import ServerSettings
from edgeai.keys.store import KeyStore
from edgeai.server import first_key
from edgeai.server.first_key import FILE_NAME, prepare_keys, wants_keys
from tests.bundle.power import PowerCut, cut_at


@pytest.mark.parametrize(
    ("address", "auth", "wanted"),
    [
        ("127.0.0.1", None, False),
        ("127.8.8.8", None, False),
        ("::1", None, False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("192.168.1.5", None, True),
        ("fe80::1%eth0", None, True),
        ("127.0.0.1", True, True),
        ("0.0.0.0", False, False),
    ],
)
def test_where_keys_are_wanted(address: str, auth: bool | None, wanted: bool) -> None:
    assert wants_keys(ServerSettings(auth=auth), address) is wanted


def test_nothing_is_made_on_this_machine(tmp_path: Path) -> None:
    said: list[str] = []
    prepare_keys(ServerSettings(), "127.0.0.1", tmp_path, said.append)
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_an_open_network_is_warned_of(tmp_path: Path) -> None:
    said: list[str] = []
    prepare_keys(ServerSettings(auth=False), "0.0.0.0", tmp_path, said.append)
    assert said == ["warning: everybody on the network may use this server, without a key"]


def test_a_terminal_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_key.sys.stderr, "isatty", lambda: True, raising=False)
    said: list[str] = []
    for _ in range(2):
        prepare_keys(ServerSettings(), "0.0.0.0", tmp_path, said.append)
    assert len(said) == 1
    found = re.search(r"sk-edgeai-\S+", said[0])
    assert found is not None
    key = KeyStore(tmp_path).verify(found[0])
    assert key is not None
    assert key.allows("admin")
    assert not (tmp_path / FILE_NAME).exists()


def test_a_log_is_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_key.sys.stderr, "isatty", lambda: False, raising=False)
    said: list[str] = []
    prepare_keys(ServerSettings(), "0.0.0.0", tmp_path, said.append)
    file = tmp_path / FILE_NAME
    secret = file.read_text().strip()
    assert KeyStore(tmp_path).verify(secret) is not None
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret not in "".join(said)


def test_no_cut_loses_the_first_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_key.sys.stderr, "isatty", lambda: False, raising=False)

    def start(home: Path) -> None:
        prepare_keys(ServerSettings(), "0.0.0.0", home, str)

    for operation in range(100):
        home = tmp_path / str(operation)
        home.mkdir()
        with cut_at(monkeypatch, operation, home) as power, contextlib.suppress(PowerCut):
            start(home)
        start(home)
        assert KeyStore(home).verify((home / FILE_NAME).read_text().strip()) is not None, operation
        if not power.cut:
            break
    assert 4 < operation < 100


def test_a_file_that_was_removed_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_key.sys.stderr, "isatty", lambda: False, raising=False)
    prepare_keys(ServerSettings(), "0.0.0.0", tmp_path, str)
    (tmp_path / FILE_NAME).unlink()
    prepare_keys(ServerSettings(), "0.0.0.0", tmp_path, str)
    assert not (tmp_path / FILE_NAME).exists()
