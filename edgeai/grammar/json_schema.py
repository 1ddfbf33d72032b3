"""JSON schemas made ready for a grammar.

Nearly everyone who lists an object's properties means these and no others, though a schema says so only by
``"additionalProperties": false``. A small model that may write more does, without end. So objects are closed where that
cannot change what else is said about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeai.errors import InvalidInput

MAX_DEPTH = 100  # of nested arrays and objects
_OPENING = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref", "$dynamicRef")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})
_BESIDE_REF = _ANNOTATIONS | {"$ref", "$defs", "definitions", "$schema", "$id"}
_LISTS = ("anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "contains")


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`schema` with objects closed: what is valid under it is valid under `schema`.

    Left as it is where schemas are merged (`allOf`, or a `$ref` beside other keywords): the parts of an object would
    then forbid each other. Raises `InvalidInput` for more than `MAX_DEPTH` levels.
    """
    parts = list(_parts(schema))
    if any("allOf" in part or ("$ref" in part and not part.keys() <= _BESIDE_REF) for part in parts):
        return schema
    return _closed_object(schema)


def _closed(part: Any) -> Any:
    return _closed_object(part) if isinstance(part, Mapping) else part


def _closed_object(part: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(part)
    for name in _SINGLE:
        if name in part:
            result[name] = _closed(part[name])
    for name in _LISTS:
        alternatives = part.get(name)
        if isinstance(alternatives, list) and (name == "prefixItems" or "properties" not in part):
            result[name] = [_closed(item) for item in alternatives]
    for name in _MAPS:
        named = part.get(name)
        if isinstance(named, Mapping):
            result[name] = {key: _closed(item) for key, item in named.items()}
    if part.get("properties") and not any(name in part for name in (*_OPENING, *_IN_PLACE)):
        result["additionalProperties"] = False
    return result


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Everything that could be a schema."""
    waiting = [(schema, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the JSON schema is nested more than {MAX_DEPTH} levels deep")
        if isinstance(part, Mapping):
            yield part
            waiting += [(item, depth + 1) for item in part.values()]
        elif isinstance(part, list):
            waiting += [(item, depth + 1) for item in part]
