"""What a template's operators, methods and filters may be given: nothing whose result would be out of proportion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError

MAX_OUTPUT = 16 * 2**20  # characters, of the prompt and of any text on the way to it
ITEM_WEIGHT = 16  # of a list's item, in characters
MAX_INDENT = 64
# Methods of texts that make them as long as a number says.
PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill", "format_map", "translate"})
_WIDTH = re.compile(r"%[^%a-zA-Z]*(\*|\d{4})")  # a padded field in a text before `%`


def weight(value: Any, limit: int) -> int:
    """How much there is of a value, with all that is inside it; more than `limit` for anything beyond."""
    total, inside = 0, [value]
    while inside:
        one = inside.pop()
        if isinstance(one, str):
            total += len(one)
            continue
        total += ITEM_WEIGHT
        if isinstance(one, (list, tuple, set, Mapping)):
            total += ITEM_WEIGHT * len(one)
            if total > limit:
                break
            inside += [*one, *one.values()] if isinstance(one, Mapping) else one
    return total


def operands_too_large(operator: str, left: Any, right: Any) -> bool:
    """Whether the result would be a text or list beyond `MAX_OUTPUT`, or a number of thousands of digits."""
    numbers = isinstance(left, int) and isinstance(right, int)
    match operator:
        case "+":
            return not numbers and _length(left) + _length(right) > MAX_OUTPUT
        case "*":
            sizes = [value if isinstance(value, int) else _length(value) for value in (left, right)]
            return not numbers and sizes[0] * sizes[1] > MAX_OUTPUT
        case "%":
            return isinstance(left, str) and _WIDTH.search(left) is not None
        case _:
            return numbers and (abs(left) > 2**32 or right > 128)


def result_too_large(value: Any) -> bool:
    """Whether a text or list is beyond `MAX_OUTPUT`."""
    return _length(value) > MAX_OUTPUT


def check_method(function: Any, args: Sequence[Any]) -> None:
    """Look at a method of a text before it is called. Raises `SecurityError`."""
    text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if not isinstance(text, str):
        return
    if name in PADDING or (name == "format" and ":" in text):
        raise SecurityError(f"texts may not be padded by {name!r}")
    if name == "replace" and len(args) > 1:
        check_replace(text, args[0], args[1])
    if name == "join" and args:
        check_join(args[0], text)


def check_filter(name: str, value: Any, args: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Look at a filter's arguments before it runs. Raises `SecurityError`."""
    given = [*args, *options.values()]
    if name == "replace" and len(given) > 1:
        check_replace(str(value), given[0], given[1])
    elif name == "join":
        check_join(value, given[0] if given else "")
    elif name == "indent":
        _check_size(str(value).count("\n") * max(map(_width, given), default=4))
    elif name == "tojson":
        _check_json(value, max(map(_width, given), default=0))
    elif name == "sum" and any(isinstance(start, (list, tuple)) for start in given):
        raise SecurityError("lists may not be added up")


def check_replace(text: str, old: Any, new: Any) -> None:
    """Whether replacing makes a text too long. Raises `SecurityError`."""
    grown = len(str(new)) - len(str(old))
    _check_size(len(text) + max(0, grown) * (text.count(str(old)) if str(old) else len(text) + 1))


def check_join(items: Any, separator: Any) -> None:
    """Whether joining makes a text too long. Raises `SecurityError`."""
    if not isinstance(items, (list, tuple, str, Mapping)):
        raise SecurityError("only lists may be joined")
    _check_size(len(str(separator)) * len(items))


def _check_json(value: Any, indent: int) -> None:
    """Indentation is repeated for every item, as often as that is deep."""
    if not indent:
        return
    items, depth, level = 0, 0, [value]
    while level:
        depth += 1
        items += len(level)
        _check_size(items * depth * indent)
        level = [inner for outer in level for inner in _inside(outer)]


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, (list, tuple)) else ()


def _width(value: Any) -> int:
    """What a number or text adds to each line."""
    width = len(value) if isinstance(value, str) else value if isinstance(value, int) else 0
    if width > MAX_INDENT:
        raise SecurityError(f"indented by more than {MAX_INDENT}")
    return width


def _check_size(size: int) -> None:
    if size > MAX_OUTPUT:
        raise SecurityError(f"a text of more than {MAX_OUTPUT} characters")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple)) else 0
