"""Repositories as they are named on the command line."""

from __future__ import annotations

import pytest

from edgeai.errors import InvalidInput
from edgeai.recipe import HubRef, ModelScopeRef
from edgeai.sources.repository import parse_spec

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("spec", "model", "revision", "pinned", "files"),
    [
        ("hub:a/b", HubRef, "main", False, ()),
        ("ms:a/b", ModelScopeRef, "master", False, ()),
        (f"hub:a/b@{COMMIT}", HubRef, COMMIT, True, ()),
        ("hub:a/b@refs/pr/1", HubRef, "refs/pr/1", False, ()),
        ("hub:a/b:x.gguf", HubRef, "main", False, ("x.gguf",)),
        (f"ms:a/b@{COMMIT}:*.json,*.safetensors", ModelScopeRef, COMMIT, True, ("*.json", "*.safetensors")),
    ],
)
def test_specs(spec: str, model: type, revision: str, pinned: bool, files: tuple[str, ...]) -> None:
    entry = parse_spec(spec)
    assert type(entry) is model
    assert entry is not None
    assert (entry.repo, entry.revision, entry.pinned, entry.files) == ("a/b", revision, pinned, files)


@pytest.mark.parametrize("spec", ["model.gguf", "a/b", "./hub:a/b", "smollm2-135m-instruct"])
def test_everything_else_is_not_a_repository(spec: str) -> None:
    assert parse_spec(spec) is None


@pytest.mark.parametrize("spec", ["hub:", "hub:model", "hub:a/b/c", "ms:../b", "hub:a/b c"])
def test_mistakes_are_explained(spec: str) -> None:
    with pytest.raises(InvalidInput, match="names no repository") as raised:
        parse_spec(spec)
    assert "hub:OWNER/NAME" in raised.value.hint
