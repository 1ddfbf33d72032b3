"""Chat templates: Jinja in a sandbox, rendering as transformers' `apply_chat_template` does.

Templates come with weights from anywhere, so they run without access to Python's insides, and with bounds that hold
the same on every machine: on the number of loop steps, on texts that are put together, and on the whole output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeai.errors import InvalidInput, PackageError

MAX_LOOP_STEPS = 1_000_000
MAX_OUTPUT = 16 * 2**20  # characters, of the prompt and of any text on the way to it
BUDGET = "__loop_budget__"  # template variable: the steps that this rendering may still take


class ChatTemplate:
    """A compiled chat template with the special tokens (`bos_token`, ...) it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile `source`. Raises `PackageError` with the line when it is not a valid template."""
        self.source = source
        self._variables: frozenset[str] | None = None
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise PackageError(f"the chat template is not valid: line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise PackageError("the chat template is nested too deeply") from error

    @property
    def variables(self) -> frozenset[str]:
        """Names of the variables that it looks at."""
        if self._variables is None:
            self._variables = frozenset(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))
        return self._variables

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`, ending where the model's reply begins when `add_generation_prompt` is set.

        `extra` are further template variables (`enable_thinking`, `documents`, ...). Raises `InvalidInput` with the
        template's own words when it refuses the messages, and when it takes too long or writes too much.
        """
        variables = {
            "documents": None,
            **self._special_tokens,
            **extra,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            BUDGET: _Budget(MAX_LOOP_STEPS),
        }
        try:
            return _bounded(self._template.generate(variables))
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the chat template refused the messages: {error}", param="messages") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InvalidInput(
                f"the chat template cannot render these messages: {what}", "check roles and contents", param="messages"
            ) from error
        except (RecursionError, MemoryError) as error:
            raise InvalidInput("the chat template takes too much to render", param="messages") from error


class _Budget:
    """Counts the loop steps of one rendering."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.left -= 1
            if self.left < 0:
                raise SecurityError(f"more than {MAX_LOOP_STEPS} loop steps")
            yield item


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with every loop counted and no operator that makes texts or numbers without bound."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(jinja2.nodes.For)):
            loop.iter = jinja2.nodes.Filter(loop.iter, "counted", [], [], None, None, lineno=loop.lineno)
        for joined in list(tree.find_all(jinja2.nodes.Concat)):
            joined.nodes = [jinja2.nodes.Filter(node, "sized", [], [], None, None) for node in joined.nodes]
        return tree

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if _too_large(operator, left, right):
            raise SecurityError(f"the operands of {operator!r} are too large")
        return super().call_binop(context, operator, left, right)


def _too_large(operator: str, left: Any, right: Any) -> bool:
    """Whether the result would be a text or list beyond `MAX_OUTPUT`, or a number of thousands of digits."""
    numbers = isinstance(left, int) and isinstance(right, int)
    match operator:
        case "+":
            return not numbers and _length(left) + _length(right) > MAX_OUTPUT
        case "*":
            sizes = [value if isinstance(value, int) else _length(value) for value in (left, right)]
            return not numbers and sizes[0] * sizes[1] > MAX_OUTPUT
        case _:
            return numbers and (abs(left) > 2**32 or right > 128)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple)) else 0


def _sized(value: Any) -> Any:
    """The operand of a concatenation, refused when it is too long; so that no text grows by more than its double."""
    if _length(value) > MAX_OUTPUT:
        raise SecurityError(f"a text of more than {MAX_OUTPUT} characters")
    return value


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks replies for training; for inference its body is all there is."""

    tags = {"generation"}  # noqa: RUF012 (the attribute's type is jinja2's)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


@jinja2.pass_context
def _counted(context: jinja2.runtime.Context, items: Iterable[Any]) -> Iterator[Any]:
    budget = context.get(BUDGET)
    if not isinstance(budget, _Budget):
        raise SecurityError(f"a template may not touch {BUDGET}")
    return budget.count(items)


def _bounded(pieces: Iterator[str]) -> str:
    written: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_OUTPUT:
            raise SecurityError(f"more than {MAX_OUTPUT} characters")
        written.append(piece)
    return "".join(written)


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


def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    filters: dict[str, Callable[..., Any]] = {"tojson": _to_json, "counted": _counted, "sized": _sized}
    environment.filters.update(filters)
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


_ENVIRONMENT = _environment()
