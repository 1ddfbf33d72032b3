"""The description of the API as tables for people: what docs/api.md has between its markers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
_MARKED = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_TYPES = {"integer": "whole number", "boolean": "true, false"}


def with_tables(page: str, document: Json) -> str:
    """The page with all that is between markers made anew.

    `<!-- generated: addresses -->`, `statuses`, `fields A & B` (of both schemas) or `fields A - B`, to `<!-- end -->`.
    """
    return _MARKED.sub(lambda found: f"{found[1]}{_table(found[2], document)}{found[3]}", page)


def _table(what: str, document: Json) -> str:
    if what == "addresses":
        return _addresses(document)
    if what == "statuses":
        return _statuses(document)
    return _fields(what.removeprefix("fields "), document["components"]["schemas"])


def _lines(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = ("---",) * len(head)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def _operations(document: Json) -> list[tuple[str, Json]]:
    return [
        (f"`{method.upper()} {path}`", operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def _addresses(document: Json) -> str:
    rows = [(address, each["summary"], _scope(each)) for address, each in _operations(document)]
    return _lines(("address", "what", "scope of a key"), rows)


def _scope(operation: Json) -> str:
    """What a key must allow; empty where none is needed."""
    return next((f"`{scopes[0]}`" for way in operation["security"] for scopes in way.values()), "")


def _statuses(document: Json) -> str:
    """Who can refuse how, beside what all can."""
    found = {address: {*each["responses"]} - {"200"} for address, each in _operations(document)}
    common = set.intersection(*found.values())
    rows = [("all", ", ".join(sorted(common)))]
    alike: dict[str, list[str]] = {}
    for address, statuses in found.items():
        alike.setdefault(", ".join(sorted(statuses - common)), []).append(address)
    rows += [(", ".join(addresses), statuses) for statuses, addresses in alike.items() if statuses]
    return _lines(("address", "refusals"), rows)


def _fields(which: str, schemas: Json) -> str:
    first, sign, second = which.partition(" & ") if " & " in which else which.partition(" - ")
    fields = schemas[first]["properties"]
    other = schemas[second.strip()]["properties"] if sign else {}
    same = {name for name, field in fields.items() if other.get(name) == field}
    shown = [name for name in fields if not sign or (name in same) is (sign == " & ")]
    required = schemas[first].get("required", ())
    rows = [
        (f"`{name}`" + (" (required)" if name in required else ""), values(fields[name]), fields[name]["description"])
        for name in shown
    ]
    return _lines(("field", "values", "what"), rows)


def values(schema: Json) -> str:
    """The values of a field in words; null, which any field may be, is left out."""
    if "anyOf" in schema:
        kinds = [values(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", ""))
    if kind == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        each = values(schema.get("items", {}))
        return f"list of {f'({each})' if ' or ' in each else each}{most}"
    if not kind:
        return "object" if "$ref" in schema or "oneOf" in schema else "any"
    return _TYPES.get(kind, kind) + _bounds(schema)


def _bounds(schema: Json) -> str:
    """What a number must be between; bounds of the machine are no news."""
    least, most = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f", more than {schema['exclusiveMinimum']:g}"
    if least is not None and most is not None:
        return f", {least:g} to {most:g}"
    return f", at least {least:g}" if least is not None and least > -(2**31) else ""
