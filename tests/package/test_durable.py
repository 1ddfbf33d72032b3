"""Power-safe writes: the order of syncs and renames, crashes at any moment, full disks, what a crash leaves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeai.errors import OutOfDisk
from edgeai.package import durable

OLD = time.time() - 3600


def fill(folder: Path, text: str) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text(text)
    (folder / "sub" / "b").write_text(text)
    return folder


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


def make_old(path: Path) -> Path:
    os.utime(path, (OLD, OLD))
    return path


@contextlib.contextmanager
def recorded_syncs_and_renames(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The real calls run; their order is noted."""
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(descriptor: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def noting_rename(path: Path, target: Path) -> Path:
        events.append(("rename", Path(target).name))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noting_fsync)
        patch.setattr(Path, "rename", noting_rename)
        yield events


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    assert durable.write_file(target, b"one") == 3
    assert durable.write_file(target, (bytes([n]) * 10 for n in range(3))) == 30
    assert target.read_bytes() == b"\0" * 10 + b"\1" * 10 + b"\2" * 10
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def breaking() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        durable.write_file(target, breaking())
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_synced_before_its_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_syncs_and_renames(monkeypatch) as events:
        durable.write_file(tmp_path / "file", b"data")
    (first, temporary), second, third = events
    assert first == "sync"
    assert temporary.startswith(durable.TEMPORARY_PREFIX)
    assert second == ("rename", "file")
    assert third == ("sync", tmp_path.name)


def test_a_folder_is_synced_to_its_last_file_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / ".edgeai-tmp-x", "new")
    with recorded_syncs_and_renames(monkeypatch) as events:
        durable.publish_folder(source, tmp_path / "final")
    renamed = events.index(("rename", "final"))
    assert {name for _, name in events[:renamed]} == {"a", "b", "sub", ".edgeai-tmp-x"}
    assert events[renamed + 1 :] == [("sync", tmp_path.name)]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two steps"])
def test_publishing_replaces_a_folder_and_removes_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    fill(tmp_path / "final", "old")
    durable.publish_folder(fill(tmp_path / ".edgeai-tmp-x", "new"), tmp_path / "final")
    assert content(tmp_path / "final") == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_this_system_exchanges_folders_atomically(tmp_path: Path) -> None:
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this C library has no renameat2")
    one, other = fill(tmp_path / "one", "1"), fill(tmp_path / "other", "2")
    if durable._exchange(one, other):
        assert (content(one), content(other)) == ({"2"}, {"1"})
    else:
        assert (content(one), content(other)) == ({"1"}, {"2"})
    with pytest.raises(FileNotFoundError):
        durable._exchange(one, tmp_path / "missing")


REPLACE_FOR_EVER = """
import sys, itertools
from pathlib import Path
from edgeai.package import durable
folder = Path(sys.argv[1])
if sys.argv[2] == "two steps":
    durable._exchange = lambda one, other: False
for round in itertools.count():
    with durable.temporary_folder(folder) as temporary:
        for n in range(5):
            (temporary / f"{n}").write_text(f"{round}")
        durable.publish_folder(temporary, folder / "final")
    if not round:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("way", ["exchange", "two steps"])
def test_a_process_killed_at_any_moment_leaves_old_or_new(tmp_path: Path, way: str) -> None:
    chance = random.Random(7)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", REPLACE_FOR_EVER, tmp_path, way], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(0.02 + chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        for path in tmp_path.glob(f"{durable.TEMPORARY_PREFIX}*"):
            make_old(path)
        durable.clean_stale(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["final"]
        assert len(list((tmp_path / "final").iterdir())) == 5
        assert len(content(tmp_path / "final")) == 1


def test_stale_temporaries_are_cleaned_but_not_young_or_locked_ones(tmp_path: Path) -> None:
    young = tmp_path / f"{durable.TEMPORARY_PREFIX}young"
    young.write_bytes(b"")
    make_old(fill(tmp_path / f"{durable.TEMPORARY_PREFIX}folder", "x"))
    stale = tmp_path / f"{durable.TEMPORARY_PREFIX}file"
    stale.write_bytes(b"")
    make_old(stale)
    (tmp_path / "mine").write_bytes(b"")
    with durable.temporary_folder(tmp_path) as in_use:
        make_old(in_use)
        handled = durable.clean_stale(tmp_path)
        assert {path.name for path in handled} == {stale.name, f"{durable.TEMPORARY_PREFIX}folder"}
        assert {path.name for path in tmp_path.iterdir()} == {young.name, in_use.name, "mine"}


def test_a_replacement_cut_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    fill(tmp_path / f"{durable.REPLACED_PREFIX}final", "old")
    durable.clean_stale(tmp_path)
    assert content(tmp_path / "final") == {"old"}
    fill(tmp_path / f"{durable.REPLACED_PREFIX}final", "older")
    durable.clean_stale(tmp_path)
    assert content(tmp_path / "final") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_removing_makes_a_folder_disappear(tmp_path: Path) -> None:
    durable.remove_folder(fill(tmp_path / "final", "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_device_is_out_of_disk_and_says_how_much_was_needed() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OutOfDisk, match=r"full: at least 25\.0 MB needed"),
    ):
        durable.write_chunks(file, [b"x" * 100_000], Path("/dev/full"), size=25_000_000)


WRITE_TOO_MUCH = """
import sys
from pathlib import Path
from edgeai.errors import OutOfDisk
from edgeai.package import durable
target = Path(sys.argv[1]) / "file"
durable.write_file(target, b"old")
try:
    durable.write_file(target, (b"x" * int(sys.argv[2]) for _ in range(20_000_000 // int(sys.argv[2]))))
except OutOfDisk as error:
    print(error.message)
assert target.read_bytes() == b"old"
print([path.name for path in target.parent.iterdir()])
"""


@pytest.mark.parametrize("chunk", [1000, 100_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, chunk: int) -> None:
    shell = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-rm", "sh", "-c", shell, "sh", tmp_path, sys.executable, WRITE_TOO_MUCH, str(chunk)]
    try:
        probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode:
        pytest.skip("this system lets us mount no small disk")
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    message, names = result.stdout.splitlines()
    assert message.startswith("no room for file: at least 1.")
    assert names == "['file']"


def test_a_sector_is_replaced_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"1" * 1024)
    number = target.stat().st_ino
    with recorded_syncs_and_renames(monkeypatch) as events:
        durable.overwrite_sector(target, b"2" * 512)
    assert target.read_bytes() == b"2" * 512 + b"1" * 512
    assert target.stat().st_ino == number
    assert events == [("sync", "file")]
    durable.overwrite_sector(target, b"3" * 512, 1)
    assert target.read_bytes() == b"2" * 512 + b"3" * 512
    with pytest.raises(ValueError, match="do not replace sector 2 "):
        durable.overwrite_sector(target, b"4" * 512, 2)


def test_only_a_whole_sector_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"short")
    durable.overwrite_sector(target, b"SHORT")
    assert target.read_bytes() == b"SHORT"
    for wrong in (b"longer", b"", b"x" * 512):
        with pytest.raises(ValueError, match="do not replace sector 0 "):
            durable.overwrite_sector(target, wrong)
