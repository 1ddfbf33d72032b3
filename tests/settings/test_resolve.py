"""Files, variables and flags: which wins, and that every mistake is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput
from edgeai.settings import sources
from edgeai.settings.resolve import changes, merge, resolve
from edgeai.settings.schema import settings_fields
from edgeai.settings.sources import from_file, from_flags, from_variables


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A system's file and a user's, neither there yet, and no variables but these."""
    for name in ("EDGEAI_CONFIG", "EDGEAI_PORT", "EDGEAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sources, "SYSTEM_FILE", tmp_path / "system.toml")
    return {"system": tmp_path / "system.toml", "user": tmp_path / "home" / "edgeai.toml"}


def test_without_anything_the_defaults_are_in_effect() -> None:
    found = resolve()
    assert found.settings == ServerSettings()
    assert set(found.origins.values()) == {"default"}


def test_flags_win_over_variables_over_files(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    places["system"].write_text('port = 1\nmax_queue = 1\nhost = "::1"\nthreads = 1\n')
    places["user"].write_text("# mine\nport = 2\nmax_queue = 2\nthreads = 2\n")
    monkeypatch.setenv("EDGEAI_PORT", "3")
    monkeypatch.setenv("EDGEAI_MAX_QUEUE", "3")
    found = resolve({"port": 4, "context": None})
    assert (found.settings.port, found.settings.max_queue, found.settings.threads) == (4, 3, 2)
    assert found.origins["port"] == "flag --port"
    assert found.origins["max_queue"] == "variable EDGEAI_MAX_QUEUE"
    assert found.origins["threads"] == f"{places['user']} line 4"
    assert found.origins["host"] == f"{places['system']} line 3"
    assert found.origins["context"] == "default"


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_chosen_file_replaces_the_others(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    places["system"].write_text("port = 1\n")
    chosen = tmp_path / "chosen.toml"
    chosen.write_text("max_queue = 5\n")
    if by_variable:
        monkeypatch.setenv("EDGEAI_CONFIG", str(chosen))
    found = resolve(config=None if by_variable else chosen)
    assert (found.settings.port, found.settings.max_queue) == (8080, 5)


def test_a_chosen_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no configuration file .*none\.toml"):
        resolve(config=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('kv_budget = "512M"', "kv_budget_bytes", 512_000_000),
        ("kv_disk = 0", "kv_disk_bytes", 0),
        ('model = "a"', "model", "a"),
        ('model = ["a", "b", "c"]', "also", ("b", "c")),
        ("profile = false", "profile", False),
        ('"port" = 9', "port", 9),
    ],
)
def test_forms_of_values(tmp_path: Path, text: str, field: str, value: Any) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text)
    assert getattr(merge([from_file(path)]).settings, field) == value


def test_variables_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAI_MODEL", "a, b")
    monkeypatch.setenv("EDGEAI_PROFILE", "no")
    monkeypatch.setenv("EDGEAI_KV_BUDGET", "1GiB")
    settings = merge([from_variables()]).settings
    assert (settings.model, settings.also, settings.profile, settings.kv_budget_bytes) == ("a", ("b",), False, 1 << 30)


def test_every_mistake_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        '# first\nprot = 3\nport = 70000\nthreads = true\n\ncheck = "now"\nkv_disk = "much"\n[limits]\nx = 1\n'
    )
    monkeypatch.setenv("EDGEAI_MAX_QUEUE", "many")
    with pytest.raises(InvalidInput) as raised:
        merge([from_file(path), from_variables(), from_flags({"context": 0, "port": 80})])
    message = raised.value.message
    for part in (
        f"{path} line 2: 'prot' is no setting; did you mean 'port'?",
        f"{path} line 3: port is 70000, but must be less than or equal to 65535",  # though the flag is right
        f"{path} line 4: threads is True, but must be a valid integer",
        f"{path} line 6: check is 'now', but must be 'always', 'changed' or 'never'",
        f"{path} line 7: kv_disk is 'much', but 'much' is not a size",
        f"{path} line 8: 'limits' is no setting",
        "variable EDGEAI_MAX_QUEUE: max_queue is 'many', but must be a valid integer",
        "flag --context: context is 0, but must be greater than or equal to 1",
    ):
        assert part in message
    assert len(message.splitlines()) == 9


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("port = 1\nhost = here\n")
    with pytest.raises(InvalidInput, match=r"wrong\.toml is not TOML: .*line 2"):
        from_file(path)
    path.write_bytes(b"host = '\xff'")
    with pytest.raises(InvalidInput, match=r"cannot read .*wrong\.toml"):
        from_file(path)


def test_variables_without_effect_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAI_PROT", "1")
    assert resolve().warnings == ("variable EDGEAI_PROT is no setting; did you mean 'port'?",)


def test_what_changes_in_a_running_server() -> None:
    live, fixed = changes(ServerSettings(), ServerSettings(log_level="debug", port=1))
    assert ([entry.name for entry in live], [entry.name for entry in fixed]) == (["log_level"], ["port"])


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [name for name in settings_fields() if f"| `{name}` |" not in text] == []
