"""The set-up page over real HTTP: what is saved is what the next start reads."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from edgeai.appliance import setup_page
from edgeai.appliance.cloud_config import BoardSettings, WifiNetwork, read_folder
from edgeai.appliance.first_boot import with_saved
from edgeai.appliance.setup_page import Handler, Server, page, save
from edgeai.errors import InvalidInput


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    restarted = threading.Event()
    monkeypatch.setattr(setup_page, "restart", restarted.set)
    monkeypatch.setattr(setup_page, "RESTART_SECONDS", 0)
    monkeypatch.setattr(Handler, "folder", tmp_path)
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join()


def post(address: tuple[str, int], **form: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("POST", "/", urlencode(form))
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_a_form_is_kept_for_the_next_start(address: tuple[str, int], tmp_path: Path) -> None:
    wifi = 'Clinic "7": up # ü'
    status, text = post(
        address, token=Handler.token, wifi=wifi, password="long: enough", country="ke", hostname="clinic"
    )
    assert (status, "Saved." in text, "<form" in text) == (200, True, False)
    saved = read_folder(tmp_path)
    assert (saved.wifi, saved.country, saved.hostname) == ((WifiNetwork(wifi, "long: enough"),), "KE", "clinic")
    assert (tmp_path / "network-config").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["😀 school", "no", "2024-01-01", "null", "a\x7fb", "~", "ໂຮງຮຽນ", "- {x: y}"])
def test_any_name_is_kept(tmp_path: Path, name: str) -> None:
    save({"wifi": name, "password": "012345670", "hostname": name}, tmp_path)
    saved = read_folder(tmp_path)
    assert saved.wifi == (WifiNetwork(name, "012345670"),)
    assert saved.notes == ()


def test_what_others_send_is_refused(address: tuple[str, int], tmp_path: Path) -> None:
    assert post(address, wifi="Evil", token="guess")[0] == 403
    assert post(address, wifi="x" * 5000, token=Handler.token)[0] == 413
    status, text = post(address, token=Handler.token, wifi="Home", password="short")
    assert (status, "has not 8 to 63 plain characters" in text) == (400, True)
    assert not list(tmp_path.iterdir())


def test_the_page_shows_the_key_and_escapes(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    text = page("token", "<b>", key_file=tmp_path / "key").decode()
    assert "<code>sk-1</code>" in text
    assert "&lt;b&gt;" in text
    assert "Key:" not in page("token", key_file=tmp_path / "none").decode()


def test_a_country_has_two_letters(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="two letters"):
        save({"wifi": "Home", "country": "1x"}, tmp_path)


def test_the_boot_partition_wins() -> None:
    saved = BoardSettings(hostname="saved", wifi=(WifiNetwork("Saved"),), country="LA")
    named = BoardSettings(wifi=(WifiNetwork("Named"),))
    assert with_saved(named, saved) == named
    assert with_saved(BoardSettings(hostname="mine"), saved) == BoardSettings(
        hostname="mine", wifi=saved.wifi, country="LA"
    )
