"""The default model under limits that the kernel enforces: it serves, or says why not, and is never killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeai.package.package import Package
from tests.fixtures.sources import REPOSITORY

MIB = 1 << 20


def check(package: Package, report: Path, *options: str) -> list[dict[str, Any]]:
    """Outcomes of `scripts/check_memory_limit.py`, which itself fails for a kill or a wrong answer."""
    command = [sys.executable, "scripts/check_memory_limit.py", str(package.path), "--json", str(report), *options]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    outcomes: list[dict[str, Any]] = json.loads(report.read_text())
    return outcomes


@pytest.mark.slow
def test_eight_clients_within_512_mib_and_a_clear_no_where_it_ends(smollm_package: Package, tmp_path: Path) -> None:
    served, refused = check(smollm_package, tmp_path / "report.json", "--limits", "512", "192", "--rounds", "1")
    assert served["outcome"] == "served"
    assert served["answers"] == 8
    assert served["equal"] + served["near_ties"] == 8
    assert 0 < served["resident"] < 512 * MIB
    assert served["peak"] is None or served["peak"] <= 512 * MIB
    if served["way"] != "rlimit":  # which is no limit that a process can see
        assert refused["outcome"] == "refused"
        assert "more memory" in refused["says"]


@pytest.mark.slow
def test_a_neighbour_gets_its_memory_from_a_server_at_work_and_at_rest(smollm_package: Package, tmp_path: Path) -> None:
    """4 MiB every 0.1 s, 170 MiB in all, held for two seconds: more than is free, less than the server can give up."""
    options = ("--limits", "512", "--clients", "5", "--rounds", "2", "--neighbour", "4", "0.1", "170", "2")
    (outcome,) = check(smollm_package, tmp_path / "report.json", *options)
    if outcome["way"] == "rlimit":
        pytest.skip("no control group can be made here, and nothing else has neighbours")
    assert outcome["outcome"] == "served"
    assert outcome["answers"] == 10
    assert outcome["neighbours"] == 3
