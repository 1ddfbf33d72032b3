"""`edgeai export`, `import`, `trust` and `update` as people type them."""

from __future__ import annotations

from pathlib import Path

from edgeai.package import Package, Store
from tests.cli.conftest import Cli


def test_a_model_goes_through_a_stick(cli: Cli, installed: Package, home: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    key = tmp_path / "key.pem"
    made = cli("trust", "make-key", key, "--json").document
    assert made["public"] == str(tmp_path / "key.pub")
    done = cli("export", installed.name, stick, "--sign-with", key)
    assert done.out.strip() == str(stick / f"{installed.name}.bundle")
    Store(home).remove(installed.name)
    refused = cli("import", done.out.strip())
    assert refused.code == 1
    assert made["fingerprint"] in refused.err
    assert "--unsigned" in refused.err
    assert cli("trust", "add", made["public"], "--name", "lab").code == 0
    imported = cli("import", done.out.strip())
    assert imported.code == 0
    assert "signed by lab" in imported.err
    assert Store(home).get(installed.name, verify=True).digest == installed.digest


def test_what_nobody_signed(cli: Cli, installed: Package, tmp_path: Path) -> None:
    done = cli("export", installed.name, tmp_path / "b")
    assert "nobody has signed it" in done.err
    assert cli("import", tmp_path / "b", "--json").document["error"]["type"] == "Untrusted"
    imported = cli("import", tmp_path / "b", "--unsigned", "--json").document
    assert (imported["signed_by"], imported["fetched_bytes"]) == (None, 0)


def test_trusted_keys_are_listed_and_removed(cli: Cli, tmp_path: Path) -> None:
    cli("trust", "make-key", tmp_path / "key.pem")
    cli("trust", "add", tmp_path / "key.pub", "--system")
    (listed,) = cli("trust", "list", "--json").document["keys"]
    assert (listed["name"], listed["kinds"]) == ("key", ["model", "system"])
    assert listed["fingerprint"] in cli("trust", "list").out
    assert cli("trust", "remove", "key").code == 0
    assert cli("trust", "list", "--json").document == {"keys": []}
    assert cli("trust", "remove", "key").code == 1


def test_what_is_no_bundle(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello" * 100)
    for location in (tmp_path / "x", tmp_path / "nothing", tmp_path):
        refused = cli("import", location, "--json")
        assert refused.code == 1
        assert refused.document["error"]["type"] in ("BundleError", "NotFound")


def test_update_is_for_boards(cli: Cli) -> None:
    refused = cli("update", "--status")
    assert refused.code == 1
    assert "no slots" in refused.err
