"""Ways to the end: what they say, that they are found in spite of bad choices, and what looking for them may take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeai.grammar import ending, road
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.constraint import CompiledGrammar
from edgeai.grammar.ending import Closers
from edgeai.grammar.spec import GrammarSpec, from_grammar, from_json_schema, from_regex
from edgeai.grammar.spelling import Spelling
from edgeai.text import Tokenizer
from tests.grammar.conftest import EOS


@pytest.fixture(scope="module")
def closers(smollm_tokenizer: Tokenizer) -> Closers:
    return Closers(Spelling(smollm_tokenizer.all_bytes(), smollm_tokenizer.control_tokens), EOS)


def way(grammar: CompiledGrammar, budget: int = 200) -> list[int]:
    """The text that a constraint leads to when it is asked for the way out again and again."""
    constraint = grammar.start()
    said: list[int] = []
    while not constraint.over(()):
        token = constraint.way_out((), budget - len(said))
        assert token is not None
        assert constraint.masks(())[0][token]
        said.append(token)
        if token in EOS:
            break
        constraint.commit(token)
    return said


def test_what_is_left_of_a_way_spells_the_rest(closers: Closers, smollm_tokenizer: Tokenizer) -> None:
    text = b'celsius", "kelvin": 1}'
    tokens = (*smollm_tokenizer.encode(text.decode()), EOS[0])
    spelling = closers.spelling
    begun = [token for token, spelled in enumerate(spelling.tokens) if spelled and text.startswith(spelled)]
    assert len(begun) >= 3
    for token in begun:
        rest = closers.behind(token, tokens)
        assert rest[-1] == EOS[0]
        assert spelling.tokens[token] + spelling.text(rest[:-1]) == text
    for other in (spelling.ids[b"x"], EOS[1]):
        assert closers.behind(other, tokens) == tokens
    assert closers.behind(tokens[0], tokens) == tokens[1:]
    assert closers.behind(5, ()) == ()


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        ({"type": "array", "items": {"type": "string"}}, ["[]"]),
        ({"type": "string"}, ['""']),
        ({"type": "string", "minLength": 1}, ['"-"']),
        ({"type": "string", "format": "email"}, ['"a@a"']),
        ({"type": "number", "exclusiveMinimum": 0}, ["0.1", "0.01", "1"]),
        ({"type": "boolean"}, ["true", "false"]),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, ['{"a": 0}']),
    ],
)
def test_ways_are_short(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, schema: dict, texts: list[str]) -> None:
    grammar = compiler.submit(from_json_schema(schema, param="")).result()
    assert smollm_tokenizer.decode(way(grammar)) in texts


EXPRESSION = {
    "$defs": {
        "e": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"sum": {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 2}},
                    "required": ["sum"],
                },
                {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]},
            ]
        }
    },
    "$ref": "#/$defs/e",
}


def test_what_led_astray_once_does_not_again(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    grammar = compiler.submit(from_json_schema(EXPRESSION, param="")).result()
    assert json.loads(smollm_tokenizer.decode(way(grammar, 12))) == {"value": 0}
    deep = grammar.start()
    for token in smollm_tokenizer.encode('{"sum": [{"sum": ['):
        deep.commit(token)
    assert grammar._ends.find(deep._matcher, 60) is not None


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (from_regex("[a-z]*;", param=""), ";"),
        (from_regex("([0-9]{30}|no)!", param=""), "no!"),
        (from_grammar('start: "x" start "x" | "y"', param=""), "y"),
    ],
)
def test_other_grammars(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, spec: GrammarSpec, text: str) -> None:
    assert smollm_tokenizer.decode(way(compiler.submit(spec).result(), len(text) + 1)) == text


def test_without_time_nothing_is_found_and_nothing_checked(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "SECONDS", 0.0)
    constraint = compiler.submit(from_regex("(a|b)*a(a|b){9}", param="")).result().start()
    token = int(np.flatnonzero(constraint.masks(())[0])[0])
    assert not constraint.can_end([token], 100)
    assert constraint.way_out((), 101) is None
    assert constraint.can_end([token], 100)


def test_patience_ends(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar whose ends take long to find holds nobody up for longer."""
    monkeypatch.setattr(road, "PATIENCE", 0.0)
    constraint = compiler.submit(from_regex("[a-z]{40}", param="")).result().start()
    token = int(np.flatnonzero(constraint.masks(())[0])[0])
    assert not constraint.can_end([token], 1)
    assert constraint.can_end([token], 1), "nothing is looked for any more"


def test_with_many_tokens_left_the_end_is_looked_for_now_and_then(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraint = compiler.submit(from_json_schema({"type": "string"}, param="")).result().start()
    looked: list[int] = []
    find = type(constraint._road)._find
    monkeypatch.setattr(
        type(constraint._road), "_find", lambda self, said, left: looked.append(left) or find(self, said, left)
    )
    (word,) = smollm_tokenizer.encode(" so")
    constraint.commit(smollm_tokenizer.encode('"')[0])
    for left in range(1000, 0, -1):
        assert constraint.can_end([word], left)
        constraint.commit(word)
    assert not constraint.can_end([word], 0)
    far = [left for left in looked if left > ending.LONGEST]
    assert 2 <= len(far) < 30
    assert [left for left in looked if left < 50] == list(range(49, -1, -1))
