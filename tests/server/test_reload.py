"""SIGHUP: what can change in a running server changes; the rest, and mistakes, are named in the log."""

from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput
from edgeai.server.reload import Reloader
from tests.fixtures.patience import PATIENCE
from tests.server.float_model import float_package


def test_only_live_settings_are_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    taken: list[ServerSettings] = []
    wanted = ServerSettings(log_level="debug", port=99)
    reloader = Reloader(ServerSettings(), lambda: wanted, [taken.append])
    reloader.reload()
    assert taken == [ServerSettings(log_level="debug")]
    assert "changed: log_level" in caplog.text
    assert "only by a restart: port" in caplog.text
    caplog.clear()
    reloader.reload()
    assert "changed: nothing" in caplog.text
    assert "only by a restart: port" in caplog.text


def test_a_wrong_configuration_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def wrong() -> ServerSettings:
        raise InvalidInput("some.toml line 3: no")

    taken: list[ServerSettings] = []
    reloader = Reloader(ServerSettings(), wrong, [taken.append])
    reloader.reload()
    assert taken == []
    assert "stays as it was: some.toml line 3: no" in caplog.text


def test_a_running_server_reads_its_file_again(tmp_path: Path) -> None:
    package = float_package(tmp_path)
    file = tmp_path / "edgeai.toml"
    common = f'port = 0\nmodel = "{package.path}"\nthreads = 1\nkv_budget = "128M"\nkv_disk = 0\ncheck = "never"\n'
    file.write_text(common)
    command = [sys.executable, "-W", "error", "-m", "edgeai", "serve", "--config", str(file)]
    environment = os.environ | {"EDGEAI_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("Ctrl-C" in line for line in lines)
        file.write_text(common.replace("threads = 1", "threads = 2") + 'log_level = "debug"\n')
        process.send_signal(signal.SIGHUP)
        assert any("changed: log_level" in line for line in lines)
        assert "only by a restart: threads" in next(lines)
        file.write_text("port = 'here'\n")
        process.send_signal(signal.SIGHUP)
        assert any("stays as it was" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_a_server_ends_with_its_terminal(tmp_path: Path) -> None:
    package = float_package(tmp_path)
    flags = ["--port", "0", "--model", str(package.path), "--threads", "1", "--kv-budget", "128M", "--check", "never"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-W", "error", "-m", "edgeai", "serve", *flags],
        stdin=slave,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"EDGEAI_HOME": str(tmp_path / "home")},
    )
    try:
        os.close(slave)
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("Ctrl-C" in line for line in lines)
        process.send_signal(signal.SIGHUP)  # by somebody, while the terminal is open
        assert any("configuration read again" in line for line in lines)
        os.close(master)  # the window is closed
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
