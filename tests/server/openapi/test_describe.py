"""The description of the API is whole, and docs/api.md has what it says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from edgeai.server.app import create_app
from edgeai.server.batch.runner import WorkFolder
from edgeai.server.openapi.operations import OPERATIONS
from edgeai.server.openapi.tables import values, with_tables
from tests.fixtures.patience import PATIENCE
from tests.fixtures.sources import REPOSITORY
from tests.server.pools import pool_over


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(pool_over({}), work=WorkFolder(tmp_path_factory.mktemp("work"), 1)).openapi()


def test_every_operation_says_what_it_answers(document: dict[str, Any]) -> None:
    """A new one belongs into edgeai/server/openapi/operations.py."""
    there = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert there == OPERATIONS.keys()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"] == OPERATIONS[method, path].summary
            assert "422" not in operation["responses"]
            assert "403" in operation["responses"]
            assert ("401" in operation["responses"]) is not path.startswith(("/health", "/api/version"))
            assert ("415" in operation["responses"]) is (method == "post" or path == "/api/delete")


def test_every_field_of_a_request_says_what_it_means(document: dict[str, Any]) -> None:
    """A new one belongs into edgeai/server/openapi/fields.py."""
    schemas = document["components"]["schemas"]
    bodies = {
        media["schema"]["$ref"].rpartition("/")[2]
        for operations in document["paths"].values()
        for operation in operations.values()
        for media in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert {"ChatRequest", "ResponsesRequest", "EmbeddingsRequest", "ChatBody"} <= bodies
    unsaid = {
        f"{name}.{field}"
        for name in bodies
        for field, schema in schemas[name]["properties"].items()
        if not schema.get("description")
    }
    assert not unsaid


def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    def check(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(reference := part.get("$ref"), str):
                assert reference.rpartition("/")[2] in document["components"]["schemas"]
            for each in part.values():
                check(each)
        elif isinstance(part, list):
            for each in part:
                check(each)

    check(document)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_page_is_not_stale() -> None:
    command = [sys.executable, REPOSITORY / "scripts" / "make_api_docs.py", "--check"]
    looked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert looked.returncode == 0, looked.stderr


def test_a_stale_page_is_made_anew(document: dict[str, Any]) -> None:
    page = "# Head\n<!-- generated: addresses -->\n| old |\n<!-- end -->\nTail\n"
    made = with_tables(page, document)
    assert "old" not in made
    assert made.startswith("# Head\n<!-- generated: addresses -->\n| address | what | scope of a key |\n")
    assert made.endswith("|\n<!-- end -->\nTail\n")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 8}, "whole number, 1 to 8"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number, more than 0"),
        ({"type": "integer", "minimum": -(2**63)}, "whole number"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": "array", "items": {"$ref": "#/x"}, "maxItems": 3}, "list of object, at most 3"),
        (
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "list of (string or whole number)",
        ),
        ({}, "any"),
    ],
)
def test_values_in_words(schema: dict[str, Any], words: str) -> None:
    assert values(schema) == words
