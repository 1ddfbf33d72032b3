"""What a request's model means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeai.errors import InvalidInput, NotFound
from edgeai.package.aliases import AliasFile
from edgeai.server.pool.catalog import Catalog
from edgeai.server.pool.names import Names
from tests.server.pools import package_like

PACKAGES: dict[str, Any] = {
    name: package_like(name, kind)
    for name, kind in (("chat", "decoder"), ("large", "decoder"), ("vectors", "embedding"))
}


def names(**options: Any) -> Names:
    return Names(Catalog(lambda: PACKAGES, list), **options)


def test_installed_names_aliases_and_defaults() -> None:
    found = names(aliases={"gpt-4o-mini": "large", "llama3.2:latest": "chat", "chat": "large"})
    asked = ("chat", "gpt-4o-mini", "llama3.2:latest", None, "", "default")
    assert [found.resolve(name).name for name in asked] == ["chat", "large", "chat", "chat", "chat", "chat"]
    assert found.resolve(None, "embedding").name == "vectors"
    assert found.all() == ["chat", "gpt-4o-mini", "large", "llama3.2:latest", "vectors"]
    assert found.get("gpt-4o-mini").root == "large"


def test_the_default_is_what_is_preferred_or_an_alias() -> None:
    assert names(preferred=("vectors", "large")).resolve(None).name == "large"
    assert names(preferred=("chat",), aliases={"default": "large"}).resolve(None).name == "large"


def test_what_there_is_not() -> None:
    found = names(aliases={"gone": "removed"})
    with pytest.raises(NotFound, match="there is no model 'other'"):
        found.resolve("other")
    with pytest.raises(NotFound, match="there is no model 'removed'"):
        found.resolve("gone")
    assert "gone" not in found.all()
    with pytest.raises(InvalidInput, match="vectors is an embedding model, not a language model"):
        found.resolve("vectors", "decoder")
    with pytest.raises(NotFound, match="this server has no reranker"):
        found.resolve(None, "reranker")


def test_the_file_is_read_again_and_the_command_line_wins(tmp_path: Path) -> None:
    file = AliasFile(tmp_path)
    found = names(aliases={"mine": "chat"}, alias_file=file)
    file.set("mine", "large")
    file.set("other", "large")
    assert (found.resolve("mine").name, found.resolve("other").name) == ("chat", "large")
    AliasFile(tmp_path).remove("other")
    with pytest.raises(NotFound):
        found.resolve("other")


def test_a_damaged_file_costs_only_its_aliases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = AliasFile(tmp_path)
    file.path.write_text("{")
    found = names(aliases={"mine": "chat"}, alias_file=file)
    assert found.resolve("mine").name == "chat"
    assert "aliases.json cannot be read" in caplog.text
