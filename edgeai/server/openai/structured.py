"""Structured output: from the fields of a request, OpenAI's and vLLM's, to a compiled grammar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeai.engine.constraint import Grammar
from edgeai.errors import InvalidInput
from edgeai.grammar import spec
from edgeai.grammar.spec import GrammarSpec
from edgeai.server.protocol import GenerationRequest, ResponseFormat

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

_KINDS: dict[str, Callable[..., GrammarSpec]] = {
    "json": spec.from_json_schema,
    "regex": spec.from_regex,
    "choice": spec.from_choices,
    "grammar": spec.from_grammar,
}


async def requested_grammar(body: GenerationRequest) -> GrammarSpec | None:
    """What the answer has to look like; None for free text. Raises `InvalidInput` for two at once, or none that is."""
    if (
        body.response_format is None
        and body.structured_outputs is None
        and all(getattr(body, f"guided_{kind}") is None for kind in _KINDS)
    ):
        return None
    return await asyncio.to_thread(_requested, body)  # a long grammar could be felt by other requests


def _requested(body: GenerationRequest) -> GrammarSpec | None:
    found = [*_of_response_format(body.response_format), *_of_structured_outputs(body), *_of_older_names(body)]
    if len(found) > 1:
        names = " and ".join(one.param for one in found)
        raise InvalidInput(f"an answer cannot have two forms: {names}", "leave all but one out", param=found[1].param)
    return found[0] if found else None


async def compiled(model: AsyncModel, wanted: GrammarSpec | None) -> Grammar | None:
    """The grammar for the engine, without holding up other requests. Raises as `GrammarCompiler.submit` does."""
    if wanted is None:
        return None
    return await asyncio.wrap_future(model.grammars.submit(wanted))


def _of_response_format(form: ResponseFormat | None) -> list[GrammarSpec]:
    if form is None or form.type == "text":
        return []
    if form.type == "json_object":
        return [spec.json_object(param="response_format")]
    if form.json_schema is None or form.json_schema.json_schema is None:
        raise InvalidInput("the schema is missing", "put it into json_schema.schema", param="response_format")
    schema, strict = form.json_schema.json_schema, form.json_schema.strict
    return [spec.from_json_schema(schema, param="response_format", lenient=strict is False)]


def _of_structured_outputs(body: GenerationRequest) -> list[GrammarSpec]:
    wanted = body.structured_outputs
    if wanted is None:
        return []
    given = {"json": wanted.json_schema, "regex": wanted.regex, "choice": wanted.choice, "grammar": wanted.grammar}
    found = [_of_kind(kind, value, f"structured_outputs.{kind}") for kind, value in given.items() if value is not None]
    return found + ([spec.json_object(param="structured_outputs.json_object")] if wanted.json_object else [])


def _of_older_names(body: GenerationRequest) -> list[GrammarSpec]:
    given = {kind: getattr(body, f"guided_{kind}") for kind in _KINDS}
    return [_of_kind(kind, value, f"guided_{kind}") for kind, value in given.items() if value is not None]


def _of_kind(kind: str, value: Any, param: str) -> GrammarSpec:
    if kind == "json" and isinstance(value, str):  # vLLM takes the schema as text too
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the schema is not JSON: {error}", param=param) from error
    return _KINDS[kind](value, param=param)
