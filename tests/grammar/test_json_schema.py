"""Objects are closed where nothing else that is said about them can change."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

import pytest

from edgeai.grammar.json_schema import MAX_INTEGER, bounded, closed, with_dates

A = {"a": {"type": "string"}}
CLOSED_A = {"type": "object", "properties": A, "additionalProperties": False}
OPEN_A = {"type": "object", "properties": A}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (OPEN_A, CLOSED_A),
        ({"properties": {}}, {"properties": {}, "additionalProperties": False}),
        ({"type": "array", "items": OPEN_A}, {"type": "array", "items": CLOSED_A}),
        ({"anyOf": [OPEN_A, {"type": "null"}]}, {"anyOf": [CLOSED_A, {"type": "null"}]}),
        (
            {"$defs": {"x": OPEN_A}, "$ref": "#/$defs/x", "title": "X"},
            {"$defs": {"x": CLOSED_A}, "$ref": "#/$defs/x", "title": "X"},
        ),
        ({"properties": {"deep": OPEN_A}}, {"properties": {"deep": CLOSED_A}, "additionalProperties": False}),
        ({"additionalProperties": OPEN_A}, {"additionalProperties": CLOSED_A}),
        ({"patternProperties": {"^x": OPEN_A}}, {"patternProperties": {"^x": CLOSED_A}}),
    ],
)
def test_closed(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert closed(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"type": "object"},
        OPEN_A | {"additionalProperties": {"type": "integer"}},
        OPEN_A | {"patternProperties": {"^x": {"type": "integer"}}},
        {"allOf": [OPEN_A, {"properties": {"b": {}}}]},
        OPEN_A | {"anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {"$defs": {"x": OPEN_A}, "$ref": "#/$defs/x", "properties": {"b": {}}},
        {"enum": [{"properties": {"a": 1}}]},
        {"const": {"properties": {"a": 1}}},
    ],
)
def test_left_open(given: dict[str, Any]) -> None:
    assert closed(given) == given


def test_dates_are_the_days_that_exist() -> None:
    pattern = with_dates({"type": "string", "format": "date"})["pattern"]
    days = [
        f"{y:04}-{m:02}-{d:02}"
        for y in (0, 1, 4, 100, 400, 1900, 2000, 2023, 2024)
        for m in range(14)
        for d in range(33)
    ]
    for day in days:
        try:
            date.fromisoformat(day)
        except ValueError:
            assert not re.search(pattern, day), day
        else:
            assert re.search(pattern, day), day


def test_moments_have_a_time_zone() -> None:
    pattern = with_dates({"type": "string", "format": "date-time"})["pattern"]
    good = ["2024-02-29T23:59:59Z", "2023-01-01T00:00:00.123456+05:30"]
    bad = ["2023-02-29T00:00:00Z", "2023-01-01T00:00:00", "2023-01-01T24:00:00Z", "2023-01-01T00:00:60Z", "2023-01-01"]
    assert all(re.search(pattern, text) and datetime.fromisoformat(text).tzinfo for text in good)
    assert not any(re.search(pattern, text) for text in bad)


def test_only_schemas_are_changed() -> None:
    kept = {
        "properties": {"format": {"type": "string"}, "x": {"format": "date", "pattern": "^2"}, "y": {"format": "uuid"}},
        "enum": [{"format": "date"}],
        "default": {"format": "date"},
    }
    assert with_dates(kept) == kept
    nested = {"anyOf": [{"items": {"format": "date"}}]}
    assert "pattern" in with_dates(nested)["anyOf"][0]["items"]


WIDE = {"minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({"type": "integer"}, WIDE),
        ({"type": "integer", "minimum": 18}, {"maximum": MAX_INTEGER}),
        ({"type": "integer", "exclusiveMaximum": 5}, {"minimum": -MAX_INTEGER}),
        ({"type": "integer", "minimum": 2**60}, {}),
        ({"type": "number", "minimum": 0}, {"multipleOf": 1e-9}),
        ({"type": "number", "minimum": 0, "multipleOf": 0.5}, {}),
        ({"type": "number", "minimum": 0, "maximum": 1e-12}, {}),
        ({"type": "number"}, {}),
        ({"type": "string", "format": "email"}, {"maxLength": 254}),
        ({"type": "string", "format": "uri", "maxLength": 9000}, {}),
        ({"type": "string", "format": "uri", "minLength": 5000}, {}),
        ({"type": "string"}, {}),
        ({"enum": [{"type": "integer"}]}, {}),
        ({"properties": {"type": {"const": "integer"}, "format": {"const": "email"}}}, {}),
    ],
)
def test_what_has_no_bounds_gets_wide_ones(given: dict[str, Any], added: dict[str, Any]) -> None:
    assert bounded(given) == given | added
    nested = {"$defs": {"x": {"anyOf": [given, {"items": given}]}}}
    assert bounded(nested) == {"$defs": {"x": {"anyOf": [given | added, {"items": given | added}]}}}
