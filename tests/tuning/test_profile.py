"""Profiles on disk: read back as written, and never used when damaged or foreign."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.engine.config import EngineSettings
from edgeai.package import durable
from edgeai.package.package import Package
from edgeai.tuning.cpu_key import CpuKey, read_cpu_key
from edgeai.tuning.profile import Profile, identity, profile_path, read_profile, with_fields, write_profile
from edgeai.warm import warm
from tests.tuning.profiles import make_profile

HERE = read_cpu_key()


@pytest.fixture
def profile(package: Package) -> Profile:
    return make_profile(package, threads=1, cpus=(0,), spin_us=0, chunk_tokens=64)


def test_written_and_read(profile: Profile, package: Package, tmp_path: Path) -> None:
    path = write_profile(tmp_path, profile)
    assert path == profile_path(tmp_path, HERE, identity(package))
    assert path.name.startswith(HERE.slug)
    assert identity(package)[:16] in path.name
    found, problem = read_profile(tmp_path, HERE, identity(package))
    assert problem is None
    assert found is not None
    assert found.digest == profile.digest
    assert with_fields(EngineSettings(), found.settings) == EngineSettings(
        threads=1, cpus=(0,), spin_us=0, chunk_tokens=64
    )


def test_none_is_no_problem(package: Package, tmp_path: Path) -> None:
    assert read_profile(tmp_path, HERE, identity(package)) == (None, None)


@given(st.data())
@settings(max_examples=150)
def test_no_changed_byte_goes_unseen(package: Package, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    home = tmp_path_factory.mktemp("home")
    original = make_profile(package, threads=1, spin_us=None)
    path = write_profile(home, original)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    found, problem = read_profile(home, HERE, identity(package))
    if found is None:
        assert problem is not None
        assert str(path) in problem
        assert "edgeai tune" in problem
    else:  # white space, or an escape that means the same
        assert found.digest == original.digest


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_half_a_profile(profile: Profile, package: Package, tmp_path: Path, length: int) -> None:
    path = write_profile(tmp_path, profile)
    path.write_bytes(path.read_bytes()[:length])
    found, problem = read_profile(tmp_path, HERE, identity(package))
    assert found is None
    assert problem is not None
    assert "cannot be read" in problem


def rewritten(path: Path, **changes: object) -> None:
    """Change a profile as somebody would who knows how it is signed."""
    document = json.loads(path.read_text())
    document.pop("sha256")
    changed = Profile.model_validate_json(json.dumps(document | changes))
    path.write_text(json.dumps(document | changes | {"sha256": changed.digest}))


def test_another_machine(profile: Profile, package: Package, tmp_path: Path) -> None:
    path = write_profile(tmp_path, profile)
    rewritten(path, cpu=HERE.model_copy(update={"model": "Cortex-A76", "cores": 99}).model_dump(mode="json"))
    found, problem = read_profile(tmp_path, HERE, identity(package))
    assert found is None
    assert f"Cortex-A76 instead of {HERE.model}, cores 99 instead of {HERE.cores}" in str(problem)


def test_another_runtime_is_told(profile: Profile, package: Package, tmp_path: Path) -> None:
    """After an update of onnxruntime the file has another name; that there was one is told."""
    path = write_profile(tmp_path, profile)
    newer = HERE.model_copy(update={"onnxruntime": "99.0"})
    found, problem = read_profile(tmp_path, newer, identity(package))
    assert found is None
    assert f"{path} is of another processor or onnxruntime" in str(problem)


def test_another_package(profile: Profile, package: Package, tmp_path: Path) -> None:
    path = write_profile(tmp_path, profile)
    other = "0" * 64
    path.rename(profile_path(tmp_path, HERE, other))
    assert "was measured for another package" in str(read_profile(tmp_path, HERE, other)[1])


@pytest.mark.parametrize(
    "setting",
    [
        {"threads": 0}, {"threads": "2"}, {"threads": True}, {"threads": None}, {"cpus": [-1]}, {"cpus": 3},
        {"spin_us": 1.5}, {"max_queue": 3}, {"kv_budget_bytes": 1}, {"nonsense": 1}, {"chunk_tokens": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(package: Package, tmp_path: Path, setting: dict[str, object]) -> None:
    write_profile(tmp_path, make_profile(package, **setting))
    found, problem = read_profile(tmp_path, HERE, identity(package))
    assert found is None
    assert next(iter(setting)) in str(problem)


def test_another_schema(profile: Profile, package: Package, tmp_path: Path) -> None:
    path = write_profile(tmp_path, profile)
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert "schema version 2 instead of 1" in str(read_profile(tmp_path, HERE, identity(package))[1])
    path.write_text("[1, 2]")
    assert "not a JSON object" in str(read_profile(tmp_path, HERE, identity(package))[1])


def test_the_old_one_stays_until_the_new_one_is_whole(
    profile: Profile, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path, profile)

    def cut(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "write_chunks", cut)
    with pytest.raises(KeyboardInterrupt):
        write_profile(tmp_path, make_profile(package, threads=7))
    found, _ = read_profile(tmp_path, HERE, identity(package))
    assert found is not None
    assert found.settings["threads"] == 1


def test_prompts_computed_ahead_make_no_other_package(package: Package, tmp_path: Path) -> None:
    shutil.copytree(package.path, tmp_path / "copy")
    cold = Package.open(tmp_path / "copy")
    warmed = warm(cold, ["Tell me all about wells, and about water, and about buckets and ropes. " * 4])
    assert warmed.digest != cold.digest
    assert identity(warmed) == identity(cold) == cold.digest


def test_keys_tell_machines_apart() -> None:
    keys = {HERE, *(HERE.model_copy(update={"onnxruntime": f"1.{minor}"}) for minor in range(20))}
    assert len({key.slug for key in keys}) == len(keys)
    odd = CpuKey.model_validate(HERE.model_dump() | {"model": "Ärmel®/../CPU @ 2.4GHz " * 9})
    assert odd.slug.replace("-", "").isalnum()
    assert len(odd.slug) < 60
