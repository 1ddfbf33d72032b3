"""`edgeai config`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli


def test_what_is_shown_is_a_configuration_file(cli: Cli, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "edgeai.toml").write_text('kv_budget = "1G"\nmodel = ["a", "b"]\n')
    shown = cli("config", "show")
    assert f"kv_budget = 1000000000  # {home}/edgeai.toml line 1" in shown.out
    again = tmp_path / "again.toml"
    again.write_text(shown.out)
    first, second = cli("config", "show", "--json"), cli("config", "show", "--json", "--config", again)
    values = [{name: entry["value"] for name, entry in shown.document.items()} for shown in (first, second)]
    assert values[0] == values[1]
    assert first.document["model"] == {"value": ["a", "b"], "origin": f"{home}/edgeai.toml line 2"}


def test_checking_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text("port = 80\n")
    assert cli("config", "check", file).out == f"{file} is right: 1 settings\n"
    file.write_text("port = 80\nhsot = 'a'\n")
    wrong = cli("config", "check", file)
    assert wrong.code == 1
    assert f"{file} line 2: 'hsot' is no setting; did you mean 'host'?" in wrong.err


def test_a_wrong_setting_keeps_the_server_from_starting(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text("max_queue = -1\n")
    refused = cli("serve", "--config", file, "--port", "99999")
    assert refused.code == 1
    assert f"{file} line 1: max_queue is -1" in refused.err
    assert "flag --port: port is 99999" in refused.err
