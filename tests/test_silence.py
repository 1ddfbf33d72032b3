"""Nothing leaves the device: no telemetry files, no name look-ups, no connection beyond loopback, on any path.

Each path runs in a process of its own under a fresh HOME. An audit hook records every address that any Python code in
it, or in what it imports, connects to or looks up; where the system lets us, a second run has no network at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.package.package import Package

HOOK = """
import atexit, json, os, sys
seen = []
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.bind"):
        seen.append([event, repr(args[1])])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen.append([event, repr(args[0])])
sys.addaudithook(hook)
atexit.register(lambda: open(os.environ["EDGEAI_TEST_AUDIT"], "a").write(json.dumps(seen) + "\\n"))
"""
LOOPBACK = ("'127.0.0.1'", "('127.0.0.1'", "'localhost'", "'::1'", "None")

SERVE_AND_ASK = """
import json, threading, time, urllib.request
import edgeai.server.serve as serving
import uvicorn
from edgeai.config import ServerSettings
started = {}
original = uvicorn.Server.startup
async def startup(self, sockets=None):
    await original(self, sockets)
    started["server"], started["port"] = self, sockets[0].getsockname()[1]
uvicorn.Server.startup = startup
def ask():
    while "port" not in started:
        time.sleep(0.05)
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{started['port']}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    answer = json.load(urllib.request.urlopen(request))
    assert answer["usage"]["completion_tokens"] > 0
    started["server"].should_exit = True
    print("answered")
thread = threading.Thread(target=ask)
thread.start()
serving.serve(ServerSettings(port=0, model=MODEL))
thread.join()
"""


class Home:
    """A fresh home folder whose Python processes are watched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.audit = folder.parent / "audit.jsonl"
        site = folder.parent / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(HOOK)
        folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "EDGEAI_", "ORT_"))}
        self.environment = kept | {
            "HOME": str(folder),
            "EDGEAI_TEST_AUDIT": str(self.audit),
            "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[1])]),
        }

    def run(self, *arguments: str, offline: bool = False) -> str:
        command = [sys.executable, *arguments]
        if offline:
            command = [
                "unshare",
                "--net",
                "--map-root-user",
                "sh",
                "-c",
                'ip link set lo up; exec "$@"',
                "sh",
                *command,
            ]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    def check(self) -> None:
        """No trace of a device id, and nothing but loopback in the audit of any process."""
        names = [path.name for path in self.folder.rglob("*")]
        assert not [name for name in names if name in {"deviceid", "onnxruntime.db", "Microsoft", ".onnxruntime"}]
        processes = [json.loads(line) for line in self.audit.read_text().splitlines()]
        assert processes, "the hook was never installed: this test would prove nothing"
        beyond = [event for seen in processes for event in seen if not event[1].startswith(LOOPBACK)]
        assert not beyond


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def can_unshare() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    command = ["unshare", "--net", "--map-root-user", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_hook_sees_a_connection(home: Home) -> None:
    """The check itself works: a look-up of a foreign name is found."""
    home.run(
        "-c", "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('example.org', 80)"
    )
    with pytest.raises(AssertionError):
        home.check()


def test_library_import(home: Home) -> None:
    home.run("-c", "import edgeai, edgeai.onnx_session, edgeai.model, edgeai.build.pipeline; import onnxruntime")
    home.check()


def test_build_from_a_file_run_and_chat(home: Home, tiny_gguf: Path, smollm_package: Package) -> None:
    home.run("-m", "edgeai", "build", str(tiny_gguf), "--json")
    home.run("-m", "edgeai", "run", str(smollm_package.path), "Hello", "--max-tokens", "4")
    home.check()


def test_a_model_in_a_bundle(home: Home, tiny_gguf: Path, tmp_path: Path) -> None:
    built = json.loads(home.run("-m", "edgeai", "build", str(tiny_gguf), "--json"))
    home.run("-m", "edgeai", "export", built["package"], str(tmp_path / "bundle"))
    home.run("-m", "edgeai", "import", str(tmp_path / "bundle"), "--unsigned")
    home.check()


def test_serve(home: Home, smollm_package: Package) -> None:
    script = f"MODEL = {str(smollm_package.path)!r}\n{SERVE_AND_ASK}"
    assert home.run("-c", script) == "answered\n"
    home.check()


@pytest.mark.skipif(not can_unshare(), reason="this system does not allow network namespaces")
def test_everything_works_without_any_network(home: Home, tiny_gguf: Path, smollm_package: Package) -> None:
    home.run("-m", "edgeai", "build", str(tiny_gguf), "--json", offline=True)
    home.run("-m", "edgeai", "run", str(smollm_package.path), "Hello", "--max-tokens", "4", offline=True)
    home.run("-c", f"MODEL = {str(smollm_package.path)!r}\n{SERVE_AND_ASK}", offline=True)
    home.check()
