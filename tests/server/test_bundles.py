"""Boards that get models from each other: ranges, keys of a scope of their own, and signatures that are handed on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeai.bundle.head import Head
from edgeai.bundle.models import export_model
from edgeai.config import ServerSettings
from edgeai.keys.store import KeyStore
from edgeai.package import Store
from edgeai.server.tls import open_tls
from tests.fixtures.bundles import noise
from tests.fixtures.patience import get
from tests.package.conftest import write_package
from tests.server.guarded import guarded
from tests.server.scripted import ScriptedModel
from tests.server.serving import serving

At = Callable[[Path], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Be another board: servers and commands look at this home."""

    def use(place: Path) -> None:
        monkeypatch.setenv("EDGEAI_HOME", str(place))

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return use


@pytest.fixture
def school(tmp_path: Path) -> Path:
    folder = tmp_path / "school"
    write_package(folder / "models" / "small", weights_bin=noise(500_000))
    return folder


def test_a_bundle_is_the_file_that_an_export_writes(school: Path, at: At, tmp_path: Path) -> None:
    at(school)
    export_model(Store(school).get("small"), school, tmp_path / "file", [])
    whole = (tmp_path / "file").read_bytes()
    with guarded(school, listening="127.0.0.1") as served:
        url = f"{served.url}/bundles/small"
        answer = get(url)
        assert answer.content == whole
        assert answer.headers["accept-ranges"] == "bytes"
        for asked, part in (
            ("bytes=0-99", whole[:100]),
            ("bytes=70000-", whole[70_000:]),
            ("bytes=1000-400000", whole[1000:400_001]),
            (f"bytes=100-{10**9}", whole[100:]),
        ):
            answer = get(url, headers={"Range": asked})
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{len(whole)}")
        assert get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
        for other in ("bytes=-5", "bytes=9-3", "lines=1-2", "bytes=0-1,3-4"):
            assert get(url, headers={"Range": other}).content == whole
        assert get(f"{served.url}/bundles").json()["data"][0]["id"] == "small"
        assert get(f"{served.url}/bundles/nothing").status_code == 404
        assert get(f"{served.url}/bundles/..%2f..%2fx").status_code in (400, 404)


def test_a_changed_model_is_another_bundle(school: Path, at: At) -> None:
    at(school)
    with guarded(school, listening="127.0.0.1") as served:
        url = f"{served.url}/bundles/small"
        before = Head.parse(get(url).content)
        newer = write_package(school / "models" / "small", weights_bin=noise(500_000, 2))
        after = Head.parse(get(url).content)
    assert after.digest != before.digest
    assert after.manifest.metadata["digest"] == newer.digest


def test_only_keys_for_bundles_get_any(school: Path, at: At) -> None:
    at(school)
    _, chatting = KeyStore(school).add("phone")
    _, board = KeyStore(school).add("clinic", scopes=("bundles",))
    with guarded(school) as served:
        url = f"{served.url}/bundles/small"
        assert get(url).status_code == 401
        assert get(url, headers={"x-api-key": chatting}).status_code == 403
        assert get(url, headers={"x-api-key": board}).status_code == 200
        assert get(f"{served.url}/v1/models", headers={"x-api-key": board}).status_code == 403


def edgeai(home: Path, *arguments: str | Path) -> Any:
    """What a command prints, on the board that has this home."""
    command = [sys.executable, "-m", "edgeai", *arguments, "--json"]
    environment = os.environ | {"EDGEAI_HOME": str(home)}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout)


def test_a_model_goes_from_board_to_board_as_its_publisher_signed_it(
    school: Path, at: At, tmp_path: Path, key_file: Path
) -> None:
    """School to clinic to ward, which trust the publisher and not each other."""
    edgeai(school, "export", "small", tmp_path / "stick.bundle", "--sign-with", key_file)
    digest = Store(school).get("small").digest
    for source, target in ((school, tmp_path / "clinic"), (tmp_path / "clinic", tmp_path / "ward")):
        at(source)
        _, secret = KeyStore(source).add("neighbour", scopes=("bundles",))
        with guarded(source) as served:
            command = ("import", "small", "--board", served.url, "--key", secret)
            assert edgeai(target, *command)["error"]["type"] == "Untrusted"
            edgeai(target, "trust", "add", key_file.with_suffix(".pub"))
            done = edgeai(target, *command)
        assert (done["signed_by"], done["digest"]) == ("school", digest)
        Store(target).get("small", verify=True)


def test_a_damaged_file_is_not_handed_on(school: Path, at: At) -> None:
    at(school)
    package = Store(school).get("small")
    with guarded(school, listening="127.0.0.1") as served:
        whole = get(f"{served.url}/bundles/small").content
        data = bytearray(package.weights.read_bytes())
        data[-1] ^= 1
        package.weights.write_bytes(data)
        start = len(whole) - 1000
        with pytest.raises(httpx.RemoteProtocolError):
            get(f"{served.url}/bundles/small", headers={"Range": f"bytes={start}-"})


def test_over_https_by_a_certificate_of_the_board_s_own(
    school: Path, at: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(school)
    tls = open_tls(ServerSettings(tls="self-signed"), "127.0.0.1", school)
    assert tls is not None
    with serving(ScriptedModel(), tls=tls) as served:
        command = ("import", "small", "--board", served.url, "--unsigned")
        assert "CERTIFICATE" in edgeai(tmp_path / "clinic", *command)["error"]["message"].upper()
        monkeypatch.setenv("EDGEAI_CERTIFICATE", str(tls.certificate))
        assert edgeai(tmp_path / "clinic", *command)["model"] == "small"
