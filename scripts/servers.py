"""Servers to measure and to treat badly: `edgeai serve`, and llama.cpp's llama-server as its peer.

    with llama_server(gguf, binary=Path("llama-server")) as server:
        ask(server.base_url, ...)

All listen on loopback, on a port of their own, and are ready when GET /health says 200.
"""

from __future__ import annotations

import compileall
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Self

from patience import PATIENCE

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.002

FlashAttention = Literal["on", "off", "auto"]
Start = Callable[[list[str], IO[bytes]], subprocess.Popen[Any]]  # a command, and where what it says goes


class Ended(RuntimeError):
    """A server that ended before it was ready."""


class Server:
    """A server process; all that it says goes to the end of `log`. Killed at the end of the context, if it still runs.

    `base_url` is http://127.0.0.1:PORT, where all servers speak OpenAI's API under /v1; `started` is
    time.perf_counter() just before the process was made. `start` makes it: by default as a child of this one.
    `port` is where one listened before it; by default any that is free.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        start: Start | None = None,
        port: int | None = None,
    ) -> None:
        self.log = log
        self._port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self._port}"
        command = [*command, "--host", "127.0.0.1", "--port", str(self._port)]
        self.started = time.perf_counter()
        with log.open("ab") as file:
            self.process = start(command, file) if start else _child(command, file, environment or {})

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return self._port

    def ready(self) -> Self:
        """Wait until it answers. Raises `Ended`, or RuntimeError when it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not self._healthy():
            if self.process.poll() is not None:
                raise Ended(f"the server ended with {self.process.returncode}: {self.said()[-3000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready after {PATIENCE:.0f} s")
            time.sleep(POLL_SECONDS)
        return self

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """Without any warning."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As a service manager does. Raises RuntimeError when it has to be killed."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError("the server did not stop when it was told to") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def edgeai_command(model: str | Path, *options: str) -> list[str]:
    """`edgeai serve` by this interpreter."""
    return [sys.executable, "-P", "-m", "edgeai", "serve", "--model", str(model), *options]


@contextlib.contextmanager
def llama_server(
    gguf: Path,
    *,
    binary: Path | None = None,
    threads: int = 2,
    context: int = 8192,
    parallel: int = 8,
    unified: bool = True,
    flash_attention: FlashAttention = "auto",
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """llama-server on `gguf`: `context` tokens of cache in all, in a pool that `parallel` slots share.

    `flash_attention` "auto" is its own default, which is on for these models on processors.
    Not `unified`, each slot has its part of the cache: rows then do not look through what is others', and are faster.
    Without `binary` the one that EDGEAI_LLAMA_SERVER or ./scripts/build_llama_server names.
    """
    command = [str(binary or find_llama_server()), "--model", str(gguf), "--threads", str(threads), "--offline"]
    command += ["--ctx-size", str(context), "--parallel", str(parallel)]
    command += ["--kv-unified" if unified else "--no-kv-unified", "--flash-attn", flash_attention, *options]
    with running(command) as server:
        yield server


@contextlib.contextmanager
def edgeai_server(
    package: Path,
    *,
    threads: int = 2,
    context: int = 8192,
    kv_budget: int | None = None,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """`edgeai serve` of this checkout on `package`, in a home folder of its own; nothing is kept on disk.

    It starts as it does every day, without the self-check of a first start, for the home is always new, and from
    bytecode, as pip installs it: a checkout has none where Python is told not to write any.
    `kv_budget` is in bytes, for the cache of all sequences; None leaves it to the machine.
    """
    compileall.compile_dir(ROOT / "edgeai", quiet=1)
    with tempfile.TemporaryDirectory() as home:
        command = edgeai_command(package, "--threads", str(threads), "--context", str(context), "--kv-disk", "0")
        command += ["--check", "never", *options]
        if kv_budget is not None:
            command += ["--kv-budget", str(kv_budget)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with running(command, {"EDGEAI_HOME": home, "PYTHONPATH": path}) as server:
            yield server


def find_llama_server() -> Path:
    """The binary, compiled when it is missing."""
    script = Path(__file__).with_name("build_llama_server")
    return Path(subprocess.run([str(script)], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The server that `command` starts, once it is ready; it is stopped in the end, whatever happens.

    Raises SystemExit when it does not start, or dies within the context.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(command, Path(folder) / "log", environment=environment) as server,
    ):
        try:
            server.ready()
        except RuntimeError as error:
            raise SystemExit(f"{' '.join(command)}: {error}") from error
        yield server
        if server.process.poll() is not None:
            raise SystemExit(f"a server died: {' '.join(command)}\n{server.said()[-3000:]}")
        with contextlib.suppress(RuntimeError):  # it was killed, then
            server.stop()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _child(command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
