"""JSON schemas made ready for a grammar.

Nearly everyone who lists an object's properties means these and no others, though a schema says so only by
``"additionalProperties": false``. A small model that may write more does, without end. So objects are closed where that
cannot change what else is said about them.

Dates and times become regular expressions of those that exist: llguidance's own know a 29th of February in every year,
a year 0 and a second 60, which programs refuse to read.

What has no natural end gets one far beyond what anybody means: a small model that has begun a row of digits or an
address often finds none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgeai.errors import InvalidInput

MAX_DEPTH = 100  # of nested arrays and objects
MAX_INTEGER = 2**53
_OPENING = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref", "$dynamicRef")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})
_BESIDE_REF = _ANNOTATIONS | {"$ref", "$defs", "definitions", "$schema", "$id"}
_LISTS = ("anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "contains")

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}  # RFC 3339, 5.6
_VALUES = ("const", "enum", "default", "examples")  # no schemas


_LONGEST = {"email": 254, "hostname": 253, "uri": 2048, "duration": 64}  # RFC 5321 and 1035; what programs take; ours
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FINEST = 1e-9  # of numbers between limits, which have no exponents
_TINY = 1e-6  # limits below it may be meant for finer numbers


def with_dates(part: Any) -> Any:
    """`part` of a schema with the formats of dates as patterns."""
    return _rewritten(part, _dated)


def bounded(part: Any) -> Any:
    """`part` of a schema with bounds for integers, for decimals and for the lengths of addresses that have none."""
    return _rewritten(part, _bounded)


def _rewritten(part: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """A copy of `part`, all schemas of which are changed."""
    if isinstance(part, list):
        return [_rewritten(item, change) for item in part]
    if not isinstance(part, Mapping):
        return part
    result = {name: item if name in _VALUES else _rewritten(item, change) for name, item in part.items()}
    change(result)
    return result


def _dated(schema: dict[str, Any]) -> None:
    form = schema.get("format")
    if isinstance(form, str) and form in _PATTERNS and "pattern" not in schema:
        del schema["format"]
        schema["pattern"] = _PATTERNS[form]


def _bounded(schema: dict[str, Any]) -> None:
    kind, form = schema.get("type"), schema.get("format")
    if isinstance(form, str) and form in _LONGEST and schema.get("minLength", 0) == 0:
        schema.setdefault("maxLength", _LONGEST[form])
    limits = [schema[name] for name in _LIMITS if isinstance(schema.get(name), (int, float))]
    if kind == "integer" and all(abs(limit) <= MAX_INTEGER for limit in limits):
        _limit_integer(schema)
    elif kind == "number" and limits and all(abs(limit) >= _TINY for limit in limits if limit):
        schema.setdefault("multipleOf", _FINEST)


def _limit_integer(schema: dict[str, Any]) -> None:
    if "exclusiveMinimum" not in schema:
        schema.setdefault("minimum", -MAX_INTEGER)
    if "exclusiveMaximum" not in schema:
        schema.setdefault("maximum", MAX_INTEGER)


def check_schema(schema: Mapping[str, Any], *, param: str) -> None:
    """Raise `InvalidInput` for more than `MAX_DEPTH` levels, and for integers that llguidance would change: it takes
    them for doubles.
    """
    check_depth(schema, param=param)
    for part in _parts(schema):
        listed = part.get("enum")
        for value in [part.get("const"), *(listed if isinstance(listed, list) else [])]:
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise InvalidInput(f"the JSON schema has the integer {value}, which is beyond 2**53", param=param)


def check_depth(value: Any, *, param: str) -> None:
    """Raise `InvalidInput` for arrays and objects of more than `MAX_DEPTH` levels, which recursion could not bear."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for part in level for item in _items(part)]
    if level:
        raise InvalidInput(f"{param} is nested more than {MAX_DEPTH} levels deep", "make it flatter", param=param)


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`schema` with objects closed: what is valid under it is valid under `schema`.

    Left as it is where schemas are merged (`allOf`, or a `$ref` beside other keywords): the parts of an object would
    then forbid each other.
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
    if isinstance(part.get("properties"), Mapping) and not any(name in part for name in (*_OPENING, *_IN_PLACE)):
        result["additionalProperties"] = False
    return result


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Everything that could be a schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
        waiting += _items(part)


def _items(part: Any) -> Iterable[Any]:
    if isinstance(part, Mapping):
        return part.values()
    return part if isinstance(part, list) else ()
