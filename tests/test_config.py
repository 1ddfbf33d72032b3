"""Folders, sizes and server settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.config import FOREVER, ServerSettings, cache_dir, home_dir, parse_duration, parse_size
from edgeai.errors import InvalidInput


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEAI_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_dir() == tmp_path / "home"
    assert cache_dir() == tmp_path / "cache"


def test_folders_default_to_the_user_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EDGEAI_HOME", "EDGEAI_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in home_dir().parents
    assert tmp_path in cache_dir().parents
    assert home_dir() != cache_dir()


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512_000_000), ("1.5G", 1_500_000_000), ("300MiB", 300 << 20), ("64", 64), ("2 kb", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1G", "1T", "1.G", "many", "1ib"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("name", "value"), [("port", 70000), ("max_rows", 0), ("max_queue", -1), ("threads", 0), ("max_context", -5)]
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is {value}") as raised:
        ServerSettings(**{name: value})
    assert raised.value.param == name


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0), (0, 0), (60, 60), ("300", 300)],
)
def test_durations(written: str | int, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", [-1, "-1", "-5m"])
def test_a_duration_below_zero_is_for_ever(written: str | int) -> None:
    assert parse_duration(written) == FOREVER


@pytest.mark.parametrize("written", ["", "soon", "5 m", "m", "5m3", True, None, [], float("nan")])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(InvalidInput, match="is not a duration"):
        parse_duration(written)
