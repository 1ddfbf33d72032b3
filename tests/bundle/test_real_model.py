"""The default model, from one board to another by the command line: it answers there as it does here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeai.package import Package

QUESTION = "Why is the sky blue? Answer in one sentence."


def edgeai(home: Path, *arguments: str | Path) -> Any:
    command = [sys.executable, "-m", "edgeai", *arguments, "--json"]
    environment = os.environ | {"EDGEAI_HOME": str(home)}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout)


def test_it_answers_there_as_here(smollm_package: Package, tmp_path: Path, key_file: Path) -> None:
    stick, clinic = tmp_path / "stick", tmp_path / "clinic"
    stick.mkdir()
    made = edgeai(tmp_path / "lab", "export", smollm_package.path, stick, "--sign-with", key_file)
    assert Path(made["file"]).parent == stick
    assert made["size_bytes"] < smollm_package.size_bytes * 1.01
    refused = edgeai(clinic, "import", made["file"])
    assert refused["error"]["type"] == "Untrusted"
    edgeai(clinic, "trust", "add", key_file.with_suffix(".pub"))
    done = edgeai(clinic, "import", made["file"])
    assert done["signed_by"] == "school"
    assert done["digest"] == smollm_package.digest
    run = ("run", QUESTION, "--max-tokens", "12", "--temperature", "0", "--threads", "1", "--no-profile")
    here = edgeai(tmp_path / "lab", run[0], smollm_package.path, *run[1:])
    there = edgeai(clinic, run[0], done["model"], *run[1:])
    assert len(here["text"]) > 10
    assert here["text"] == there["text"]
