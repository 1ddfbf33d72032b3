"""Progress for people: lines where there is no terminal, bars where there is one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from edgeai.cli.output import LineProgress

STEPS = """
from edgeai.cli.output import progress_display
with progress_display() as progress:
    progress("copy [1]")
    for done in range(5):
        progress("convert", done, 4)
print("result")
"""


def test_lines_say_each_step_and_each_quarter_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress()
    progress("check")
    for done in range(101):
        progress("convert", done, 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "check ...", "convert ...", "convert ... 25 %", "convert ... 50 %", "convert ... 75 %", "convert ... 100 %",
    ]  # fmt: skip


def test_a_terminal_shows_bars_and_standard_output_stays_clean() -> None:
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        result = subprocess.run(
            [sys.executable, "-c", STEPS], stdout=subprocess.PIPE, stderr=end, text=True, check=True
        )
        os.close(end)
        shown = screen.read(100_000).decode()
    assert result.stdout == "result\n"
    assert "convert" in shown
    assert "copy [1]" in shown
