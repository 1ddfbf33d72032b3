"""What an answer has to look like, as a client says it: a JSON schema, a regular expression, choices or a grammar.

A `GrammarSpec` is llguidance's own form of it (https://github.com/guidance-ai/llguidance, docs/syntax.md), not compiled
yet. JSON is written on one line with ", " and ": " between its parts, as models write it most: then no model can go on
writing spaces, and what is fixed can be drafted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeai.errors import InvalidInput
from edgeai.grammar.json_schema import bounded, check_schema, closed, with_dates

MAX_CHARACTERS = 1 << 18
MAX_CHOICES = 1000
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """One of llguidance's grammars as JSON text; `param` is the request's field that it came from.

    `fallback` is taken where the grammar itself has no texts at all. `named` are those that it refers to as @name.
    `markers` are what ends parts that are free text.
    """

    part: str
    param: str
    fallback: str | None = None
    named: Mapping[str, GrammarSpec] = field(default_factory=dict)
    markers: tuple[str, ...] = ()

    def documents(self) -> list[str]:
        """What to compile: the first that can be. Raises `InvalidInput` for more than `MAX_CHARACTERS`."""
        inner = self.named.items()
        tight = [self.part, *(_with_name(name, spec.part) for name, spec in inner)]
        loose = [self.fallback or self.part, *(_with_name(name, spec.fallback or spec.part) for name, spec in inner)]
        if max(sum(map(len, tight)), sum(map(len, loose))) > MAX_CHARACTERS:
            raise InvalidInput(
                f"the grammar is longer than {MAX_CHARACTERS} characters", "make it smaller", param=self.param
            )
        documents = [f'{{"grammars": [{", ".join(parts)}]}}' for parts in (tight, loose)]
        return list(dict.fromkeys(documents))


def framed(lark: str, named: Mapping[str, GrammarSpec], *, param: str, markers: Sequence[str] = ()) -> GrammarSpec:
    """A Lark grammar around others, with free text in it that ends in `markers`."""
    return GrammarSpec(json.dumps({"lark_grammar": lark}), param, named=dict(named), markers=tuple(markers))


def _with_name(name: str, part: str) -> str:
    return f'{{"name": {json.dumps(name)}, {part[1:]}'


def from_json_schema(schema: Any, *, param: str, lenient: bool = False) -> GrammarSpec:
    """JSON that is valid under `schema`: draft 2020-12, as far as llguidance knows it; `lenient` ignores the rest.

    Objects have no other properties than the schema names, unless it says that they may; numbers and addresses that
    have no bounds get wide ones. Raises `InvalidInput` for what is no schema.
    """
    if not isinstance(schema, Mapping):
        raise InvalidInput("a JSON schema is a JSON object", param=param)
    check_schema(schema, param=param)
    tight = bounded(closed(schema))
    options = _COMPACT | {"lenient": lenient}

    def part(content: Mapping[str, Any]) -> str:
        return json.dumps({"json_schema": {**with_dates(content), "x-guidance": options}})

    return GrammarSpec(part(tight), param, None if tight == schema else part(schema))


def json_object(*, param: str) -> GrammarSpec:
    """Any JSON object."""
    return from_json_schema({"type": "object"}, param=param)


def from_regex(pattern: str, *, param: str) -> GrammarSpec:
    """Text that `pattern` matches as a whole; Rust's syntax, without look-around."""
    return GrammarSpec(json.dumps({"lark_grammar": f"start: REGEX\nREGEX: {_slashed(pattern)}"}), param)


def _slashed(pattern: str) -> str:
    from llguidance import regex_to_lark  # takes as long to import as a request may wait, so only where it is needed

    return f"/{regex_to_lark(pattern, use_ascii='')}/"


def from_choices(choices: Sequence[str], *, param: str) -> GrammarSpec:
    """One of `choices`. Raises `InvalidInput` if there are none, or too many."""
    if not 0 < len(choices) <= MAX_CHOICES:
        raise InvalidInput(f"there must be 1 to {MAX_CHOICES} choices", param=param)
    alternatives = " | ".join(map(json.dumps, choices))
    return GrammarSpec(json.dumps({"lark_grammar": f"start: {alternatives}"}), param)


def from_grammar(text: str, *, param: str) -> GrammarSpec:
    """A grammar in Lark's syntax as llguidance has it, or in llama.cpp's GBNF. Raises `InvalidInput` for others."""
    from llguidance.gbnf_to_lark import any_to_lark

    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"the grammar is longer than {MAX_CHARACTERS} characters", "make it smaller", param=param)
    try:
        lark = any_to_lark(text)
    except Exception as error:  # of the converter's own kinds
        raise InvalidInput(f"the grammar cannot be read: {error}", "write Lark or GBNF", param=param) from error
    return GrammarSpec(json.dumps({"lark_grammar": lark}), param)
