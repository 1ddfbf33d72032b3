"""Starting and stopping the server as people do: a process, an address, a signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput, NotFound
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.server.listening import listen, welcome
from edgeai.server.loading import find_package
from edgeai.server.serve import serve
from tests.fixtures import patience
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package

PROGRAM = """
import sys
from edgeai.config import ServerSettings
from edgeai.server.serve import serve
limits = dict(threads=1, kv_budget_bytes=1 << 27, kv_disk_bytes=int(sys.argv[2]))
serve(ServerSettings(port=0, model=sys.argv[1], check=sys.argv[3], **limits))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return float_package(tmp_path_factory.mktemp("tiny"))


@contextmanager
def running(
    package: Package, home: Path, *, disk: int = 0, check: str = "never"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process that has said where it is; all it says before that."""
    # A framework that would send traces somewhere if the environment asked for it must not be asked.
    environment = os.environ | {"HOME": str(home), "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(package.path), str(disk), check]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, said
    finally:
        process.kill()
        process.communicate()


def url_in(said: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_start_ask_stop(package: Package, tmp_path: Path, stop: signal.Signals) -> None:
    with running(package, tmp_path) as (process, said):
        url = url_in(said)
        assert f"Open {url}/ in a browser" in said
        answer = patience.post(
            f"{url}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "secret question"}], "max_tokens": 5},
        )
        assert answer.json()["usage"]["completion_tokens"] <= 5
        assert "server" not in answer.headers
        assert "date" in answer.headers
        process.send_signal(stop)
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == (0 if stop == signal.SIGINT else -signal.SIGTERM)
    assert output == ""
    assert "POST /v1/chat/completions 200" in errors
    assert "Traceback" not in errors
    assert "secret" not in errors
    assert list(tmp_path.iterdir()) == []  # nothing was left in the home folder


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_only_a_server_that_died_is_checked_again(package: Package, tmp_path: Path, stop: signal.Signals) -> None:
    checked = []
    for _ in range(2):
        with running(package, tmp_path, check="changed") as (process, said):
            checked.append("checking tiny with" in said)
            process.send_signal(stop)
            process.communicate(timeout=PATIENCE)
    assert checked == [True, stop == signal.SIGKILL]


def cached_tokens(url: str) -> int:
    """Ask the long question; how much of it had not to be read."""
    body = {"prompt": "Tell me all about wells, and about water. " * 12, "max_tokens": 3, "temperature": 0}
    usage = patience.post(f"{url}/v1/completions", json=body).json()["usage"]
    assert usage["prompt_tokens"] > 400
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def test_what_was_read_is_not_read_again_after_the_power_is_cut(package: Package, tmp_path: Path) -> None:
    with running(package, tmp_path, disk=1 << 28) as (process, said):
        assert cached_tokens(url_in(said)) == 0
        assert cached_tokens(url_in(said)) > 400
        kept = tmp_path / ".local/share/edgeai/kv"
        deadline = time.monotonic() + PATIENCE
        while len(list(kept.rglob("*.kv"))) < 13 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {folder.stat().st_mode & 0o077 for folder in kept.iterdir()} == {0}
    with running(package, tmp_path, disk=1 << 28) as (_, said):
        assert cached_tokens(url_in(said)) > 400


def test_the_curl_line_works(package: Package, tmp_path: Path) -> None:
    with running(package, tmp_path) as (_, said):
        command = said[said.index("curl") : said.index("OpenAI clients")]
        answer = subprocess.run(
            ["bash", "-c", command.replace("}]}", '}], "max_tokens": 3}')], capture_output=True, check=True
        )
    assert b'"chat.completion"' in answer.stdout


def test_an_address_that_is_taken_shows_before_the_model_is_loaded() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port}: Address already in use"):
            serve(ServerSettings(port=port, model="/there/is/no/such/package"))


def test_an_address_that_does_not_exist() -> None:
    with pytest.raises(InvalidInput, match=r"cannot listen on nowhere\.invalid"):
        listen("nowhere.invalid", 0)


def test_without_a_name_the_only_model_is_served(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path))
    with pytest.raises(NotFound, match="no model is installed"):
        find_package(None)
    with pytest.raises(NotFound, match="tiny"):
        find_package("tiny")
    Store(tmp_path).install(package.path)
    assert find_package(None).name == find_package("tiny").name == "tiny"
    (tmp_path / "models" / "tiny").rename(tmp_path / "models" / "other")
    Store(tmp_path).install(package.path)
    with pytest.raises(InvalidInput, match="several models"):
        find_package(None)
    assert find_package(str(package.path)).path == package.path


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_addresses_to_open(host: str, shown: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listen(host, 0) as listener:
        assert f"{shown}{listener.getsockname()[1]}/" in welcome(listener, "tiny")


def test_only_servers_that_others_can_reach_announce_themselves() -> None:
    from contextlib import nullcontext

    from edgeai.server.announcing import announcing

    with listen("127.0.0.1", 0) as private:
        assert isinstance(announcing(ServerSettings(), private), nullcontext)
        assert not isinstance(announcing(ServerSettings(announce=True), private), nullcontext)
    with listen("0.0.0.0", 0) as public:
        assert isinstance(announcing(ServerSettings(announce=False), public), nullcontext)
        assert not isinstance(announcing(ServerSettings(), public), nullcontext)
