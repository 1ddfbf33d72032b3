"""Servers to measure, as context managers: `edgeai serve`, and llama.cpp's llama-server as its peer.

    with llama_server(gguf, binary=Path("llama-server")) as server:
        ask(server.base_url, ...)

Both listen on loopback, on a port of their own, and are ready when GET /health says 200.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patience import PATIENCE

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.002
STOP_SECONDS = 40.0  # longer than the grace that either server gives its requests


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready."""

    base_url: str  # http://127.0.0.1:PORT, where both speak OpenAI's API under /v1
    pid: int
    started: float  # time.perf_counter() just before the process was made
    start_seconds: float  # from there until /health said 200


@contextlib.contextmanager
def llama_server(
    gguf: Path,
    *,
    binary: Path | None = None,
    threads: int = 2,
    context: int = 8192,
    parallel: int = 8,
    options: Sequence[str] = (),
) -> Iterator[RunningServer]:
    """llama-server on `gguf`: `context` tokens of cache in all, in a pool that `parallel` slots share.

    Without `binary` the one that EDGEAI_LLAMA_SERVER or ./scripts/build_llama_server names.
    """
    command = [str(binary or find_llama_server()), "--model", str(gguf), "--threads", str(threads), "--offline"]
    command += ["--ctx-size", str(context), "--parallel", str(parallel), "--kv-unified", *options]
    with _running(command, {}) as server:
        yield server


@contextlib.contextmanager
def edgeai_server(
    package: Path,
    *,
    threads: int = 2,
    context: int = 8192,
    kv_budget: int | None = None,
    options: Sequence[str] = (),
) -> Iterator[RunningServer]:
    """`edgeai serve` of this checkout on `package`, in a home folder of its own; nothing is kept on disk.

    It starts as it does every day, without the self-check of a first start, for the home is always new.
    `kv_budget` is in bytes, for the cache of all sequences; None leaves it to the machine.
    """
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "edgeai", "serve", "--model", str(package), "--threads", str(threads)]
        command += ["--context", str(context), "--kv-disk", "0", "--check", "never", *options]
        if kv_budget is not None:
            command += ["--kv-budget", str(kv_budget)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with _running(command, {"EDGEAI_HOME": home, "PYTHONPATH": path}) as server:
            yield server


def find_llama_server() -> Path:
    """The binary, compiled when it is missing."""
    script = Path(__file__).with_name("build_llama_server")
    return Path(subprocess.run([str(script)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@contextlib.contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[RunningServer]:
    """The server that `command` starts, once it is ready; it is stopped in the end, whatever happens."""
    port = free_port()
    command = [*command, "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
        try:
            _wait(process, port, log)
            yield RunningServer(f"http://127.0.0.1:{port}", process.pid, started, time.perf_counter() - started)
            if process.poll() is not None:
                raise SystemExit(f"a server died: {' '.join(command)}\n{_tail(log)}")
        finally:
            _stop(process)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _healthy(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"a server did not start: {process.args!r}\n{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-3000:]
