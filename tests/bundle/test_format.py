"""The format: bundles are the same each time, and whoever changes a byte of one is found out."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.head import CONTEXT, MAGIC, Head
from edgeai.bundle.manifest import Chunk, FileRecord, Manifest, manifest_bytes, pack_chunks
from edgeai.bundle.reader import Bundle
from edgeai.bundle.writer import Contents, stream, write_bundle
from edgeai.errors import BundleError, InvalidInput, NotFound
from tests.bundle.conftest import MakeBundle
from tests.fixtures.bundles import noise

FILES = {"root": noise(300_000), "boot/kernel": noise(50_000, 2), "boot/empty": b"", "boot/again": noise(50_000, 2)}


def content(path: Path) -> dict[str, bytes]:
    with Bundle.open(str(path)) as bundle:
        data = dict(bundle.chunks(bundle.head.offsets))
        return {
            name: b"".join(data[chunk] for chunk in file.each_chunk())
            for name, file in bundle.head.manifest.files.items()
        }


def signed(body: bytes, key: Ed25519PrivateKey) -> bytes:
    """A head of whatever `body` is, rightly signed."""
    public = key.public_key().public_bytes_raw()
    return struct.pack("<8sII", MAGIC, len(body), 1) + public + key.sign(CONTEXT + body) + body


def document(**changes: Any) -> dict[str, Any]:
    record = {"size": 3, "sha256": "0" * 64, "mean": 16384, "chunks": pack_chunks([Chunk(bytes(32), 3)])}
    return {
        "schema_version": 1, "kind": "system", "name": "x", "version": "1", "metadata": {}, "files": {"f": record},
    } | changes  # fmt: skip


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_what_goes_in_comes_out(make_bundle: MakeBundle) -> None:
    path = make_bundle(FILES)
    assert content(path) == FILES
    assert path.stat().st_size < 350_000 + 3000, "what is there twice is stored once"


def test_the_same_files_and_key_give_the_same_bytes(make_bundle: MakeBundle) -> None:
    assert make_bundle(FILES, "one").read_bytes() == make_bundle(FILES, "two").read_bytes()


def test_any_part_of_a_bundle_can_be_made_from_its_files(make_bundle: MakeBundle, tmp_path: Path) -> None:
    whole = make_bundle(FILES).read_bytes()
    head = Head.parse(whole)
    files = {name: tmp_path / "contents" / "made.bundle" / name for name in FILES}
    for start, stop in ((0, len(whole)), (0, 10), (5, 2000), (1500, 100_001), (len(whole) - 3, len(whole)), (7, 7)):
        assert b"".join(stream(head, files, start, stop)) == whole[start:stop]


def test_a_file_that_changes_while_it_is_written_is_noticed(make_bundle: MakeBundle, tmp_path: Path) -> None:
    head = Head.parse(make_bundle(FILES).read_bytes())
    files = {name: tmp_path / "contents" / "made.bundle" / name for name in FILES}
    files["root"].write_bytes(noise(300_000, 9))
    with pytest.raises(BundleError, match="not what it was"):
        list(stream(head, files))


def test_every_changed_byte_is_found(make_bundle: MakeBundle, tmp_path: Path) -> None:
    whole = bytearray(make_bundle({"a": noise(500), "b": noise(300, 2)}).read_bytes())
    for at in range(len(whole)):
        changed = whole.copy()
        changed[at] ^= 1 + at % 255
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(BundleError):
            content(tmp_path / "changed")


def test_every_cut_is_found(make_bundle: MakeBundle, tmp_path: Path) -> None:
    whole = make_bundle({"a": noise(500), "b": noise(300, 2)}).read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(BundleError, match=r"cut off|not a bundle"):
            content(tmp_path / "cut")


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "a//b", "a/", ".hidden", "a/.x", "", "a\\b", "a\nb", "a\0", "x" * 101,
     "a/b/c/d/e/f/g", "-rf", "é"],
)  # fmt: skip
def test_names_that_reach_out_are_refused(tmp_path: Path, key: Ed25519PrivateKey, name: str) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(InvalidInput, match="not a name"):
        write_bundle(tmp_path / "b", Contents("system", "x", {name: tmp_path / "x"}), [key])
    hostile = document(files={name: document()["files"]["f"]})
    with pytest.raises(BundleError, match="not a name"):
        Head.parse(signed(canonical(hostile), key))


RECORD = document()["files"]["f"]
HUGE = pack_chunks([Chunk(bytes(32), 1 << 30)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"A": RECORD, "a": RECORD}}, "twice"),
        ({"files": {"a": RECORD, "a/b": RECORD}}, "lies in a file"),
        ({"files": {}}, "files"),
        ({"files": {str(n): RECORD for n in range(5000)}}, "files"),
        ({"files": {"f": RECORD | {"size": 4}}}, "its chunks have 3 bytes"),
        ({"files": {"f": RECORD | {"size": -1}}}, "size"),
        ({"files": {"f": RECORD | {"size": 1 << 60}}}, "size"),
        ({"files": {"f": RECORD | {"size": 1 << 30, "chunks": HUGE}}}, "a chunk has no bytes, or more"),
        ({"files": {"f": RECORD | {"chunks": "AAAA"}}}, "half a chunk"),
        ({"files": {"f": RECORD | {"chunks": "no base64!"}}}, "base64"),
        ({"files": {"f": RECORD | {"mean": 0}}}, "mean"),
        ({"files": {"f": RECORD | {"sha256": "x"}}}, "sha256"),
        ({"schema_version": 2}, "newer"),
        ({"schema_version": "1"}, "schema_version"),
        ({"kind": "virus"}, "kind"),
        ({"name": "../x"}, "name"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_manifests_that_cannot_be_are_refused(key: Ed25519PrivateKey, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Head.parse(signed(canonical(document(**changes)), key))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b"NaN"])
def test_what_is_no_manifest_is_refused(key: Ed25519PrivateKey, body: bytes) -> None:
    with pytest.raises(BundleError):
        Head.parse(signed(body, key))


def test_only_the_canonical_form_counts(key: Ed25519PrivateKey) -> None:
    Head.parse(signed(canonical(document()), key))
    with pytest.raises(BundleError, match="canonical"):
        Head.parse(signed(json.dumps(document()).encode(), key))


def test_lengths_that_are_lies_allocate_nothing(tmp_path: Path) -> None:
    for length, count in ((0xFFFFFFFF, 0), (10, 0xFFFFFFFF), (9 << 20, 1)):
        (tmp_path / "lie").write_bytes(struct.pack("<8sII", MAGIC, length, count) + bytes(100))
        with pytest.raises(BundleError, match="claims"):
            Bundle.open(str(tmp_path / "lie"))


def test_a_signature_over_something_else_is_none(key: Ed25519PrivateKey) -> None:
    body = canonical(document())
    without_context = key.public_key().public_bytes_raw() + key.sign(body)
    with pytest.raises(BundleError, match="signature that is wrong"):
        Head.parse(struct.pack("<8sII", MAGIC, len(body), 1) + without_context + body)


def test_a_manifest_has_one_form() -> None:
    record = FileRecord(**RECORD)
    one = Manifest(kind="model", name="x", files={"b": record, "a": record}, metadata={"z": 1, "y": "é"})
    other = Manifest(kind="model", name="x", files={"a": record, "b": record}, metadata={"y": "é", "z": 1})
    assert manifest_bytes(one) == manifest_bytes(other)


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read"):
        Bundle.open(str(tmp_path / "nothing"))


MEMORY = """
import resource, sys, tracemalloc
from pathlib import Path
from edgeai.bundle.reader import Bundle
from edgeai.bundle.assembly import Assembly
from edgeai.bundle.writer import Contents, write_bundle
folder = Path(sys.argv[1])
write_bundle(folder / "warm", Contents("system", "x", {"x": Path(sys.executable)}), [])
tracemalloc.start()
write_bundle(folder / "b", Contents("system", "x", {"big": folder / "big"}), [])
with Bundle.open(str(folder / "b")) as bundle:
    with Assembly({folder / "out": bundle.head.manifest.files["big"]}) as assembly:
        assembly.fetch(bundle)
        assembly.verify()
print(tracemalloc.get_traced_memory()[1])
"""


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for seed in range(64):
            file.write(noise(1 << 20, seed))
    run = [sys.executable, "-c", MEMORY, tmp_path]
    peak = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "big").read_bytes()
    assert peak < 12 << 20
