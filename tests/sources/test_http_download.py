"""What downloads refuse: addresses, answers and servers that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.errors import SourceError
from edgeai.http_client import Request, ServerRefusal, get_json
from edgeai.sources.http_download import RemoteFile, digests_of, download
from tests.fixtures.hub_server import HubServer, Repository, git_sha1, sha256


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "127.0.0.1/x"])
def test_only_http_is_spoken(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError, match="is not an http address"):
        download(Request(url), RemoteFile("x", 1), tmp_path / "x", tmp_path / "x.part", lambda _done: None)


def test_an_answer_that_is_not_json(hub_server: HubServer) -> None:
    hub_server.repositories["a/b"] = Repository({"page.html": b"<html>"})
    with pytest.raises(SourceError, match="not JSON"):
        get_json(Request(f"{hub_server.url}/a/b/resolve/main/page.html"))


def test_a_refusal_is_for_the_caller_to_explain(hub_server: HubServer) -> None:
    with pytest.raises(ServerRefusal, match="HTTP 404") as raised:
        get_json(Request(f"{hub_server.url}/nothing"))
    assert raised.value.status == 404


def test_both_digests_of_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than one piece
    (tmp_path / "x").write_bytes(data)
    digests = digests_of(tmp_path / "x")
    assert (digests.sha256, digests.git_sha1) == (sha256(data), git_sha1(data))
    assert git_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's own name of the empty file


def test_an_empty_file(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.repositories["a/b"] = Repository({"empty.txt": b""})
    file = RemoteFile("empty.txt", 0, sha256(b""))
    target = tmp_path / "folder" / "empty.txt"
    url = f"{hub_server.url}/a/b/resolve/main/empty.txt"
    download(Request(url), file, target, tmp_path / "part", lambda _done: None)
    assert target.read_bytes() == b""
    assert hub_server.seen == []  # there was nothing to ask for
