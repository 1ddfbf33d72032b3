"""`edgeai tune` as a whole, on a real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeai.package import Package
from edgeai.tuning.cpu_key import read_cpu_key
from edgeai.tuning.knobs import KNOBS
from edgeai.tuning.profile import identity, profile_path, read_profile
from tests.cli.conftest import Cli


@pytest.mark.slow
def test_the_command_tunes_a_real_model_and_keeps_what_it_found(cli: Cli, home: Path, smollm_package: Package) -> None:
    found = cli("tune", str(smollm_package.path), "--seconds", "5", "--json")
    assert found.code == 0, found.err
    key, digest = read_cpu_key(), identity(smollm_package)
    path = profile_path(home, key, digest)
    assert found.document["path"] == str(path)
    profile, problem = read_profile(home, key, digest)
    assert problem is None
    assert profile is not None
    assert json.loads(json.dumps(profile.settings)) == found.document["settings"]
    assert {choice.knob for choice in profile.choices} >= {knob.name for knob in KNOBS}
    assert profile.golden.tokens
    assert profile.golden.tokens_per_second > 0
    again = cli("bench", str(smollm_package.path), "--rounds", "1", "--json")
    assert again.document["threads"] == profile.settings["threads"]
