"""The sandbox of chat templates: no way into Python's insides, and bounds on steps, time, texts and all that is made.

Templates come with weights from anywhere, and what they are given comes from clients. Whatever a template makes
(results of calls, filters, operators and literals) is weighed with all that is inside it and charged to a budget that
is never paid back: so nothing can grow without bound, not even lists that contain one list many times. Bounds hold the
same on every machine, except the one on time, which is there for the few single steps that may take long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeai.text.template_bounds import (
    MAX_OUTPUT,
    check_filter,
    check_method,
    operands_too_large,
    result_too_large,
    weight,
)

MAX_SOURCE = 2**20  # characters of a template
MAX_STEPS = 1_000_000  # of loops, and calls
MAX_WEIGHT = 128 * 2**20  # of all that a rendering makes, in characters; an item of a list is sixteen
MAX_SECONDS = 30.0
BUDGET = "__budget__"  # template variable: what this rendering may still take
# Filters of Jinja that templates use; others could make a text of any size from a number, or are of no use here.
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "indent",
    "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate", "unique",
    "upper", "wordcount",
)  # fmt: skip
GLOBALS = ("cycler", "dict", "joiner", "range")


class Budget:
    """What one rendering may still take."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._weight = MAX_WEIGHT
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """Another step of a loop, or call. Raises `SecurityError`."""
        self._steps -= 1
        if self._steps < 0:
            raise SecurityError(f"more than {MAX_STEPS} loop steps and calls")
        if time.monotonic() > self._deadline:
            raise SecurityError(f"more than {MAX_SECONDS} seconds")

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, counted."""
        for item in items:
            self.step()
            yield item

    def charge(self, value: Any) -> Any:
        """`value`, paid for. Raises `SecurityError`."""
        self._weight -= weight(value, self._weight)
        if self._weight < 0:
            raise SecurityError(f"more than {MAX_WEIGHT} characters and items are made")
        return value


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a price on everything."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(jinja2.nodes.For)):
            loop.iter = _filtered(loop.iter, "counted")
        for joined in list(tree.find_all(jinja2.nodes.Concat)):
            joined.nodes = [_filtered(node, "sized") for node in joined.nodes]
        for parent in [tree, *tree.find_all(jinja2.nodes.Node)]:
            _charge_literals(parent)
        return tree

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be large. Raises `SecurityError`."""
        if operands_too_large(operator, left, right):
            raise SecurityError(f"the operands of {operator!r} are too large")
        return _budget(context).charge(super().call_binop(context, operator, left, right))

    def call(__self, __context: jinja2.runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call of a macro, method or function. Raises `SecurityError`."""
        budget = _budget(__context)
        budget.step()
        check_method(__obj, args)
        if isinstance(__obj, jinja2.runtime.LoopContext) and args:  # a recursive loop goes on with other items
            args = (budget.count(args[0]), *args[1:])
        return budget.charge(super().call(__context, __obj, *args, **kwargs))


def environment() -> Environment:
    """The environment that all chat templates share."""
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    own: dict[str, Callable[..., Any]] = {"tojson": _metered("tojson", _to_json), "counted": _counted, "sized": _sized}
    own |= {"charged": _charged}
    made.filters = {name: _metered(name, jinja2.filters.FILTERS[name]) for name in FILTERS} | own
    made.globals = {name: made.globals[name] for name in GLOBALS}
    made.globals.update(namespace=_Namespace, raise_exception=_raise_exception, strftime_now=_strftime_now)
    return made


def bounded(pieces: Iterator[str]) -> str:
    """The output in one piece. Raises `SecurityError` if there is too much of it."""
    written: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_OUTPUT:
            raise SecurityError(f"more than {MAX_OUTPUT} characters")
        written.append(piece)
    return "".join(written)


class _Namespace(jinja2.utils.Namespace):
    """Variables that outlive a loop. What is put into one is not weighed again, so it must not be written out."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks replies for training; for inference its body is all there is."""

    tags = {"generation"}  # noqa: RUF012 (the attribute's type is jinja2's)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _filtered(node: Any, name: str) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _charge_literals(parent: jinja2.nodes.Node) -> None:
    """Put a price on lists and mappings that are written out, unless all in them are constants."""
    if isinstance(parent, jinja2.nodes.Filter) and parent.name == "charged":
        return
    for field, value in parent.iter_fields():
        if isinstance(value, list):
            setattr(parent, field, [_charged_literal(item) for item in value])
        else:
            setattr(parent, field, _charged_literal(value))


def _charged_literal(node: Any) -> Any:
    stored = isinstance(node, jinja2.nodes.Tuple) and node.ctx != "load"
    if stored or not isinstance(node, (jinja2.nodes.List, jinja2.nodes.Tuple, jinja2.nodes.Dict)):
        return node
    if all(isinstance(item, jinja2.nodes.Const) for item in node.items):
        return node
    return _filtered(node, "charged")


def _budget(context: jinja2.runtime.Context) -> Budget:
    budget = context.get(BUDGET)
    if not isinstance(budget, Budget):
        raise SecurityError(f"a template may not touch {BUDGET}")
    return budget


@jinja2.pass_context
def _counted(context: jinja2.runtime.Context, items: Iterable[Any]) -> Iterator[Any]:
    return _budget(context).count(items)


@jinja2.pass_context
def _charged(context: jinja2.runtime.Context, value: Any) -> Any:
    return _budget(context).charge(value)


def _sized(value: Any) -> Any:
    """The operand of a concatenation, refused when it is too long; so that no text grows by more than its double."""
    if result_too_large(value):
        raise SecurityError(f"a text of more than {MAX_OUTPUT} characters")
    return value


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments are looked at and whose result is paid for."""
    wants = getattr(function, "jinja_pass_arg", None)

    @jinja2.pass_context
    @wraps(function)
    def metered(context: jinja2.runtime.Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        budget.step()
        if name == "join":
            value = budget.charge(list(value))
        check_filter(name, value, args, kwargs)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        given = () if wants is None else (first[wants.name],)
        return budget.charge(function(*given, value, *args, **kwargs))

    return metered


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it into prompts: Jinja's own filter would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
