"""A canary in prompts, keys, names and addresses: after real requests it is in no log, metric, status or file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from edgeai.keys.store import KeyStore
from edgeai.package.package import Package
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package

CANARY = "KanarienvogelXQ"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return float_package(tmp_path_factory.mktemp("tiny"))


@contextmanager
def running(package: Package, home: Path, said: list[str]) -> Iterator[str]:
    """A server that wants keys and logs all it can; `said` gets every line, and the address is given."""
    arguments = ["--port", "0", "--model", str(package.path), "--threads", "1", "--kv-budget", "128M", "--auth"]
    arguments += ["--log-level", "debug", "--check", "never", "--kv-disk", "64M", "--tokens-per-day", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "edgeai", "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"EDGEAI_HOME": str(home), "HOME": str(home)},
    )
    assert process.stderr is not None
    try:
        while "Ctrl-C" not in "".join(said):
            line = process.stderr.readline()
            assert line, said
            said.append(line)
        found = re.search(r"http://127\.0\.0\.1:\d+", "".join(said))
        assert found is not None
        yield found[0]
        process.send_signal(signal.SIGTERM)
        said.append(process.communicate(timeout=PATIENCE)[1])
    finally:
        process.kill()
        process.communicate()


def provoke(client: httpx.Client, secret: str) -> None:
    """Requests of all kinds, right and wrong, each with the canary somewhere."""
    prompt = {"messages": [{"role": "user", "content": f"My secret is {CANARY}. " * 20}], "max_tokens": 8}
    assert client.post(CHAT, json=prompt).status_code == 200
    with client.stream("POST", CHAT, json={**prompt, "stream": True, "max_tokens": 500}) as cut:
        next(cut.iter_lines())
    answers = [
        client.post("/v1/completions", json={"prompt": CANARY, "max_tokens": 4, "echo": True}),
        client.post("/v1/completions", json={"prompt": CANARY * 5000}),
        client.post(CHAT, json={**prompt, "model": CANARY}),
        client.post(CHAT, json={**prompt, "temperature": CANARY}),
        client.post(CHAT, json={**prompt, "stop": [CANARY]}),
        client.post(CHAT, json={**prompt, "messages": [{"role": CANARY, "content": CANARY}]}),
        client.post(CHAT, json={**prompt, "user": CANARY}, headers={"x-request-id": CANARY, "user-agent": CANARY}),
        client.post(CHAT, content=f'{{"messages": {CANARY}', headers={"content-type": "application/json"}),
        client.post(CHAT, content=CANARY),
        client.post("/v1/embeddings", json={"input": CANARY}),
        client.get(f"/{CANARY}?key={CANARY}"),
        client.get("/v1/models", headers={"authorization": f"Bearer sk-edgeai-{CANARY}"}),
        client.get("/v1/models", headers={"host": f"{CANARY}.example"}),
        client.get("/v1/models", headers={"origin": f"https://{CANARY}.example"}),
        client.get("/v1/models", headers={"x-api-key": f"{secret}{CANARY}"}),
    ]
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 403, 404}


def test_no_secret_and_no_prompt_is_left_anywhere(package: Package, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, secret = KeyStore(home).add("phone", scopes=["admin"])
    said: list[str] = []
    with running(package, home, said) as url:
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
            provoke(client, secret)
            told = [client.get(path).text for path in ("/metrics", "/status", "/health", "/v1/models")]
    log = "".join(said)
    assert "POST /v1/chat/completions 200" in log  # it was listening
    kept = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and "kv" not in path.parts}
    assert {path.name for path in kept} >= {"keys.json", "token-usage.json"}
    seen = {"log": log.encode(), "told": json.dumps(told).encode()} | {str(path): text for path, text in kept.items()}
    for what in (CANARY, secret, secret.rpartition("-")[2]):
        assert [place for place, text in seen.items() if what.encode() in text] == []


def test_what_is_kept_of_conversations_only_its_owner_can_read(package: Package, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, secret = KeyStore(home).add("phone")
    with running(package, home, []) as url:
        body = {"prompt": f"{CANARY} " * 60, "max_tokens": 2}
        httpx.post(f"{url}/v1/completions", json=body, headers={"x-api-key": secret}, timeout=PATIENCE)
    kept = [path for path in (home / "kv").rglob("*") if path.is_file()]
    assert kept
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in kept)
    assert {path.stat().st_mode & 0o077 for path in (home / "kv").iterdir()} == {0}
