"""Keys: private ones are private, public ones count for what they were trusted with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle import keys
from edgeai.bundle.head import Head
from edgeai.bundle.keys import TrustStore, load_public_key, load_signing_key, make_key_pair
from edgeai.bundle.manifest import FileRecord, Manifest
from edgeai.errors import InvalidInput, NotFound, Untrusted


def head(kind: str, *keys: Ed25519PrivateKey) -> Head:
    record = FileRecord(size=0, sha256="0" * 64, mean=16384, chunks="")
    return Head.sign(Manifest(kind=kind, name="x", files={"f": record}), keys)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "own", tmp_path / "image")


def test_a_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    public, fingerprint = make_key_pair(tmp_path / "k.pem")
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    assert public.name == "k.pub"
    assert len(fingerprint) == 19
    (tmp_path / "k.pem").chmod(0o640)
    with pytest.raises(InvalidInput, match="others can read"):
        load_signing_key(tmp_path / "k.pem")


def test_no_key_is_replaced(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(InvalidInput, match="there already"):
        make_key_pair(tmp_path / "k.pem")
    assert (tmp_path / "k.pem").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(InvalidInput, match="no private key"):
        load_signing_key(tmp_path / "k")
    with pytest.raises(InvalidInput, match="no public key"):
        load_public_key(tmp_path / "k")
    with pytest.raises(InvalidInput, match="cannot read"):
        load_public_key(tmp_path / "nothing")


def test_keys_of_openssl_are_keys(tmp_path: Path) -> None:
    private, public = tmp_path / "o.pem", tmp_path / "o.pub"
    try:
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl")
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    private.chmod(0o600)
    assert load_signing_key(private).public_key().public_bytes_raw() == load_public_key(public)


def test_a_key_counts_for_what_it_was_trusted_with(store: TrustStore, key_file: Path, key: Ed25519PrivateKey) -> None:
    with pytest.raises(Untrusted, match="not trusted here") as raised:
        store.check(head("model", key))
    assert "trust add" in raised.value.hint
    store.add(key_file.with_suffix(".pub"))
    assert store.check(head("model", key)).name == "school"
    with pytest.raises(Untrusted, match="trusted for models, and this is a system"):
        store.check(head("system", key))
    store.add(key_file.with_suffix(".pub"), system=True)
    assert store.check(head("system", key)).kinds == ("model", "system")


def test_a_stranger_s_signature_beside_a_trusted_one_does_no_harm(
    store: TrustStore, key_file: Path, key: Ed25519PrivateKey
) -> None:
    store.add(key_file.with_suffix(".pub"))
    assert store.check(head("model", Ed25519PrivateKey.generate(), key)).name == "school"


def test_unsigned_is_not_trusted(store: TrustStore) -> None:
    with pytest.raises(Untrusted, match="nobody has signed"):
        store.check(head("model"))


def test_a_key_that_is_removed_counts_no_more(store: TrustStore, key_file: Path, key: Ed25519PrivateKey) -> None:
    store.add(key_file.with_suffix(".pub"), "lab")
    store.add(key_file.with_suffix(".pub"), "lab", system=True)
    store.remove("lab")
    assert store.all() == ()
    with pytest.raises(NotFound):
        store.remove("lab")


def test_keys_of_the_image_stay(store: TrustStore, key_file: Path) -> None:
    store.image.mkdir()
    (store.image / "maker.pub").write_bytes(key_file.with_suffix(".pub").read_bytes())
    with pytest.raises(InvalidInput, match="came with the system"):
        store.remove("maker")
    assert store.all()[0].kinds == ("model", "system")


def test_names_of_keys(store: TrustStore, key_file: Path, tmp_path: Path) -> None:
    store.add(key_file.with_suffix(".pub"), "lab")
    other, _ = make_key_pair(tmp_path / "other.pem")
    with pytest.raises(InvalidInput, match="another key is called"):
        store.add(other, "lab")
    for name in ("../x", ".hidden", "a b"):
        with pytest.raises(InvalidInput, match="no name"):
            store.add(other, name)


def test_a_flashed_board_does_not_look_into_the_server_s_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(keys, "BOARD_FOLDER", tmp_path / "data" / "keys")
    monkeypatch.setattr(keys, "IMAGE_FOLDER", tmp_path / "image")
    assert TrustStore.of(home).own == home / "trusted"
    (tmp_path / "image").mkdir()
    assert TrustStore.of(home).own == tmp_path / "data" / "keys"


def test_a_file_that_is_no_key_shuts_nobody_out(
    store: TrustStore, key_file: Path, key: Ed25519PrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(key_file.with_suffix(".pub"))
    (store.own / "a.pub").write_text("half of a k")
    assert store.check(head("model", key)).name == "school"
    assert "a.pub is no public key" in caplog.text
