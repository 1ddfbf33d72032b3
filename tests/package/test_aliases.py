"""Other names for models, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package.aliases import AliasFile, parse_aliases


def test_set_read_and_remove(tmp_path: Path) -> None:
    file = AliasFile(tmp_path)
    assert file.all() == {}
    file.set("llama3.2:latest", "tiny")
    file.set("gpt-4o-mini", "tiny:doctor")
    assert AliasFile(tmp_path).all() == {"llama3.2:latest": "tiny", "gpt-4o-mini": "tiny:doctor"}
    file.remove("gpt-4o-mini")
    assert file.all() == {"llama3.2:latest": "tiny"}
    with pytest.raises(NotFound, match=r"there is llama3\.2:latest"):
        file.remove("gpt-4o-mini")


@pytest.mark.parametrize(("alias", "target"), [("", "tiny"), ("a b", "tiny"), ("tiny", "tiny"), ("a", ""), ("é", "b")])
def test_what_cannot_be(tmp_path: Path, alias: str, target: str) -> None:
    with pytest.raises(InvalidInput):
        AliasFile(tmp_path).set(alias, target)


def test_a_model_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="'tiny' is an installed model"):
        AliasFile(tmp_path).set("tiny", "other")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    file = AliasFile(tmp_path)
    file.path.write_text(text)
    with pytest.raises(PackageError, match=r"aliases\.json"):
        file.all()


def test_the_command_line() -> None:
    assert parse_aliases(("a=b", "c:d=e:f")) == {"a": "b", "c:d": "e:f"}
    with pytest.raises(InvalidInput):
        parse_aliases(("a",))
