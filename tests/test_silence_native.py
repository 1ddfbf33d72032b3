"""Nothing leaves the device, seen from below Python: native code, too, opens no socket beyond loopback.

`tests/test_silence.py` watches what Python does; libraries could go around it. Here strace watches the system calls.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
INTERNET = re.compile(r"sa_family=AF_INET6?.*")
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')


def traced(folder: Path, *arguments: str) -> list[str]:
    """Run Python under a fresh home and return the network calls that name an address beyond loopback."""
    trace = folder / "trace"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "EDGEAI_", "ORT_"))
    }
    environment |= {"HOME": str(folder), "PYTHONPATH": str(REPOSITORY)}
    command = ["strace", "-f", "-qq", "-e", CALLS, "-o", str(trace), sys.executable, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = trace.read_text().splitlines()
    return [line for line in lines if INTERNET.search(line) and not LOOPBACK.search(line)]


def can_trace() -> bool:
    if not shutil.which("strace"):
        return False
    return (
        subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not can_trace(), reason="there is no strace, or it may not trace here")


def test_a_connection_would_be_seen(tmp_path: Path) -> None:
    """A datagram socket "connects" without sending; 192.0.2.1 is an address for documentation (RFC 5737)."""
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('{}', 9))"
    (line,) = traced(tmp_path, "-c", script.format("192.0.2.1"))
    assert "192.0.2.1" in line
    assert traced(tmp_path, "-c", script.format("127.0.0.1")) == []


def test_build_and_run_open_no_socket_beyond_loopback(tmp_path: Path, tiny_gguf: Path) -> None:
    assert traced(tmp_path, "-m", "edgeai", "build", str(tiny_gguf)) == []
    assert traced(tmp_path, "-m", "edgeai", "run", "tiny", "Hello", "--max-tokens", "8") == []
    assert list((tmp_path / ".local/share/edgeai/models").iterdir())
    assert not list(tmp_path.rglob("*Microsoft*"))
