"""Whatever a model would say, its answer is whole when its budget is the shortest answer's and a margin."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeai.engine.wind_down import choose
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.constraint import CompiledGrammar
from edgeai.grammar.reply import Calls, Tool, reply_spec
from edgeai.grammar.spec import from_json_schema, from_regex
from edgeai.text import Tokenizer
from edgeai.text.reasoning import FORMATS as REASONING
from edgeai.text.reasoning import ReasoningParser, Thinking
from edgeai.text.tool_calls.detect import FORMATS
from tests.fixtures.grammars import SchemaCase, schema_cases
from tests.fixtures.replies import parsed, put_together
from tests.grammar.conftest import EOS


def margin(shortest: int) -> int:
    """What docs/structured-output.md says."""
    return shortest // 4 + 8


def say(grammar: CompiledGrammar, budget: int, seed: int) -> tuple[list[int], bool]:
    """Random tokens, and none of them the end if it can go on; and whether they are a whole text."""
    rng = np.random.default_rng(seed)
    constraint = grammar.start()
    wish = rng.random(constraint.masks(())[0].size)

    def draw(mask: np.ndarray) -> int:
        allowed = np.flatnonzero(mask)
        if not np.isin(allowed, EOS).all():
            allowed = allowed[~np.isin(allowed, EOS)]
        at = int(rng.integers(len(allowed)))
        near = allowed[max(0, at - 50) : at + 50]
        return int(near[wish[near].argmax()])

    said: list[int] = []
    while len(said) < budget:
        said.append(choose(draw, constraint.masks(())[0], constraint, (), budget - len(said)))
        if said[-1] in EOS:
            return said, True
        constraint.commit(said[-1])
        if constraint.over(()):
            return said, True
    return said, False


@pytest.mark.parametrize("case", schema_cases()[::4], ids=[case.name for case in schema_cases()[::4]])
def test_tight_answers_to_schemas_of_all_kinds(
    case: SchemaCase, compiler: GrammarCompiler, smollm_tokenizer: Tokenizer
) -> None:
    grammar = compiler.submit(from_json_schema(case.schema, param="")).result()
    way = grammar.shortest()
    assert way is not None
    for seed, budget in enumerate((way, way + 3, way + 20, way + 150)):
        said, whole = say(grammar, budget, seed)
        assert whole, smollm_tokenizer.decode(said)
        jsonschema.validate(json.loads(smollm_tokenizer.decode(said)), case.schema, jsonschema.Draft202012Validator)


# Schemas that hold themselves, each with its shortest value. The first alternative is the one that goes on for ever.
Part = tuple[dict[str, Any], Any]


def _array(part: Part, least: int) -> Part:
    return {"type": "array", "items": part[0], "minItems": least}, [part[1]] * least


def _object(parts: dict[str, Part], optional: dict[str, Part]) -> Part:
    properties = {name: part[0] for name, part in (optional | parts).items()}
    schema = {"type": "object", "properties": properties, "required": list(parts), "additionalProperties": False}
    return schema, {name: part[1] for name, part in parts.items()}


def _or_itself(part: Part, names: list[str]) -> Part:
    """The part, or an object of several of the whole."""
    again = {name: {"$ref": "#/$defs/whole"} for name in names}
    inner = {"type": "object", "properties": again, "required": names, "additionalProperties": False}
    return {"anyOf": [inner, part[0]]}, part[1]


STRINGS = st.integers(0, 12).map(lambda least: ({"type": "string", "minLength": least}, "a" * least))
WORDS = st.lists(st.sampled_from(["no", "celsius", "fahrenheit", "tomorrow morning"]), min_size=1, unique=True).map(
    lambda words: ({"enum": words}, min(words, key=len))
)
OTHERS = st.sampled_from([
    ({"type": "number"}, 0),
    ({"type": "integer", "minimum": 18}, 18),
    ({"type": "number", "exclusiveMinimum": 0}, 1),
    ({"type": "integer", "multipleOf": 25, "minimum": 1}, 25),
    ({"type": ["string", "null"], "minLength": 40}, None),
    ({"type": "string", "format": "email"}, "a@b.c"),
    ({"type": "string", "format": "date-time"}, "2020-01-01T00:00:00Z"),
    ({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}, "AB-0000"),
])  # fmt: skip
NAMES = st.sampled_from(["a", "name", "left", "right", "children", "value"])
PARTS: st.SearchStrategy[Part] = st.recursive(
    st.one_of(STRINGS, WORDS, OTHERS),
    lambda inner: st.one_of(
        st.builds(_array, inner, st.integers(0, 3)),
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=4), st.dictionaries(NAMES, inner, max_size=2)),
    ),
    max_leaves=8,
)
WHOLE = st.builds(_or_itself, PARTS, st.lists(NAMES, min_size=1, max_size=3, unique=True))


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(part=WHOLE, seed=st.integers(0, 1000), extra=st.sampled_from([0, 1, 30, 100]))
def test_a_budget_of_the_shortest_answer_and_a_margin_is_enough(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, part: Part, seed: int, extra: int
) -> None:
    whole, value = part
    schema = {"$defs": {"whole": whole}, "$ref": "#/$defs/whole"}
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
    grammar = compiler.submit(from_json_schema(schema, param="")).result()
    shortest = len(smollm_tokenizer.encode(json.dumps(value)))
    said, ended = say(grammar, shortest + margin(shortest) + extra, seed)
    assert ended, (schema, smollm_tokenizer.decode(said))
    jsonschema.validate(json.loads(smollm_tokenizer.decode(said)), schema, jsonschema.Draft202012Validator)


def test_a_budget_that_is_too_small_changes_nothing(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 60}}, "required": ["text"]}
    grammar = compiler.submit(from_json_schema(schema, param="")).result()
    ahead, whole = say(grammar, 4, seed=1)
    assert not whole
    assert ahead == say(grammar, 200, seed=1)[0][:4]


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_calls_that_are_begun_are_whole(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, name: str, required: bool, strict: bool
) -> None:
    form = FORMATS[name]
    tools = [Tool.of("get_weather", CITY, strict=strict, param="")]
    spec = reply_spec(smollm_tokenizer, calls=Calls(form, tools, required, True))
    assert spec is not None
    grammar = compiler.submit(spec).result()
    for seed, budget in enumerate((48, 60, 90)):
        said, whole = say(grammar, budget, seed)
        assert whole or not required
        _, _, found = put_together(parsed(form.parser(), list(smollm_tokenizer.decode(said))))
        assert found or not required
        for _, arguments in found:
            jsonschema.validate(json.loads(arguments), CITY)


@pytest.mark.parametrize("reasoning", REASONING, ids=[form.begin for form in REASONING])
def test_thoughts_leave_room_for_the_answer(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, reasoning: Any
) -> None:
    spec = reply_spec(
        smollm_tokenizer, answer=from_json_schema(CITY, param=""), reasoning=reasoning, thinking=Thinking.OPEN
    )
    assert spec is not None
    grammar = compiler.submit(spec).result()
    for seed, budget in enumerate((40, 64, 120)):
        said, whole = say(grammar, budget, seed)
        assert whole
        _, answer, _ = put_together(
            parsed(
                ReasoningParser(reasoning, Thinking.OPEN, FORMATS["hermes"].parser()),
                list(smollm_tokenizer.decode(said)),
            )
        )
        jsonschema.validate(json.loads(answer), CITY)


def test_regular_expressions_end_too(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    grammar = compiler.submit(from_regex(r"[0-9]+(,[0-9]{2}){0,9}\.", param="")).result()
    for seed in range(5):
        said, whole = say(grammar, 12, seed)
        assert whole
        assert smollm_tokenizer.decode(said).endswith(".")
