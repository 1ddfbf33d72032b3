"""Commands in a root folder of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.errors import ProgramFailed
from edgeai.imaging.tools import Tools, python_path

pytestmark = pytest.mark.image


def test_a_command_is_root_and_alone_and_sees_what_is_bound(image_tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello\n")
    script = "id -u; echo $$; cat /mine/in /etc/hostname; : >/dev/null; ls /proc/sys/fs/binfmt_misc; echo x >/mine/out"
    said = image_tools.run(["bash", "-c", script], binds={tmp_path: "/mine"})
    assert said.splitlines()[:4] == ["0", "1", "hello", "builder"]
    assert "qemu-aarch64" in said
    assert (tmp_path / "out").read_text() == "x\n"


def test_a_command_that_fails_is_told_with_its_last_words(image_tools: Tools) -> None:
    with pytest.raises(ProgramFailed, match=r"ended with 7:\nno luck"):
        image_tools.run(["bash", "-c", "echo no luck; exit 7"])
    with pytest.raises(ProgramFailed, match=r"no-such-program cannot be run"):
        image_tools.run(["no-such-program"])


def test_a_build_that_is_killed_leaves_nothing_running(image_tools: Tools) -> None:
    command = [sys.executable, "-m", "edgeai.imaging.enter", str(image_tools.root), "--", "bash", "-c"]
    started = subprocess.Popen(
        [*command, "echo up; exec sleep 600"], env=os.environ | python_path(), stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert started.stdout.read() == b""  # the end of the pipe: whoever had it open is gone
    started.stdout.close()
