"""Every text that a schema's masks let through is valid under the schema, by the judgement of `jsonschema`."""

from __future__ import annotations

import json
from datetime import datetime, time
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.errors import InvalidInput
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.spec import from_json_schema, json_object
from edgeai.text import Tokenizer
from tests.fixtures.grammars import SchemaCase, schema_cases, write
from tests.grammar.conftest import EOS

CASES = schema_cases()
FORMATS = jsonschema.FormatChecker()
FORMATS.checkers.pop("time")  # that of jsonschema is draft 3's, without a time zone


@FORMATS.checks("time", ValueError)
def is_time(text: object) -> bool:
    return not isinstance(text, str) or time.fromisoformat(text).tzinfo is not None


@FORMATS.checks("date-time", ValueError)
def is_date_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


def check(text: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator, format_checker=FORMATS)


def texts(compiler: GrammarCompiler, tokenizer: Tokenizer, schema: dict[str, Any], seeds: range) -> list[str]:
    grammar = compiler.submit(from_json_schema(schema, param="schema")).result()
    return [write(grammar.start(), tokenizer, set(EOS), seed) for seed in seeds]


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 280
    for case in CASES:
        jsonschema.Draft202012Validator.check_schema(case.schema)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_random_texts_are_valid(case: SchemaCase, compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    for text in texts(compiler, smollm_tokenizer, case.schema, range(3)):
        check(text, case.schema)


NAMES = st.sampled_from(["a", "name", "b c", "ünï", "x_1"])
VALUES = st.text(max_size=8) | st.integers(-(2**53), 2**53)
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-500, 500),
        st.integers(0, 2000),
    ),
    st.builds(
        lambda low, size: {"type": "number", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(1, 100),
    ),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 5),
        st.integers(0, 20),
    ),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=5)),
    st.builds(lambda name: {"type": "string", "format": name}, st.sampled_from(["date", "time", "uuid", "ipv4"])),
    st.just({"type": "string", "pattern": "^[a-c]{1,4}(-[0-9]{2})?$"}),
)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [name for name in required if name in properties]}


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=4), st.lists(NAMES, unique=True)),
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda part: {"$defs": {"part": part}, "type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2},
            LEAVES,
        ),
    ).filter(lambda schema: "$defs" not in json.dumps(schema)[2:]),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_texts_of_generated_schemas_are_valid(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, schema: dict[str, Any], seed: int
) -> None:
    try:
        (text,) = texts(compiler, smollm_tokenizer, schema, range(seed, seed + 1))
    except InvalidInput as error:
        # Most schemas have texts; of some there are none, of others none that the model's tokens can spell.
        assert "Unsatisfiable" in str(error) or "tokens cannot spell" in str(error)  # noqa: PT017
        return
    check(text, schema)


def test_any_object(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    grammar = compiler.submit(json_object(param="")).result()
    for seed in range(20):
        assert isinstance(json.loads(write(grammar.start(), smollm_tokenizer, set(EOS), seed)), dict)


def test_properties_keep_their_order_and_one_line(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    schema = _object({"z": {"const": 1}, "a": {"const": [1, 2]}, "m": {"const": {"k": None}}}, ["z", "a", "m"])
    (text,) = texts(compiler, smollm_tokenizer, schema, range(1))
    assert text == '{"z": 1, "a": [1, 2], "m": {"k": null}}'
