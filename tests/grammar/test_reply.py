"""Grammars of whole replies: whatever they let through, the parser of the same format finds valid calls in it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from edgeai.errors import InvalidInput
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.reply import Calls, Tool, reply_spec
from edgeai.grammar.spec import from_choices, from_json_schema
from edgeai.text import Tokenizer
from edgeai.text.reasoning import FORMATS as REASONING
from edgeai.text.reasoning import ReasoningParser, Thinking
from edgeai.text.tool_calls.detect import FORMATS
from edgeai.text.tool_calls.json_format import JsonFormat
from tests.fixtures.grammars import write
from tests.fixtures.replies import parsed, put_together
from tests.grammar.conftest import EOS

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
TREE = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/node"}},
    "required": ["node"],
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 9}]}},
}
TOOLS = [
    Tool.of("get_weather", CITY, strict=True, param=""),
    Tool.of("tree", TREE, strict=False, param=""),
    Tool.of("now", None, strict=True, param=""),
]
SCHEMAS: dict[str, dict[str, Any]] = {"get_weather": CITY, "tree": TREE, "now": {"maxProperties": 0}}


def calls(form: JsonFormat, *, required: bool, parallel: bool = True) -> Calls:
    return Calls(form, TOOLS, required, parallel)


def replies(compiler: GrammarCompiler, tokenizer: Tokenizer, spec: Any, count: int, patience: int = 10) -> list[str]:
    grammar = compiler.submit(spec).result()
    return [write(grammar.start(), tokenizer, set(EOS), seed, patience=patience) for seed in range(count)]


def check(found: list[tuple[str, str]]) -> None:
    for name, arguments in found:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("parallel", [False, True])
def test_required_calls_are_calls(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, name: str, parallel: bool
) -> None:
    form = FORMATS[name]
    spec = reply_spec(smollm_tokenizer, calls=calls(form, required=True, parallel=parallel))
    most = 0
    for text in replies(compiler, smollm_tokenizer, spec, 8):
        _, shown, found = put_together(parsed(form.parser(), list(text)))
        assert shown == ""
        assert found
        check(found)
        most = max(most, len(found))
    assert most == 1 if not parallel else most >= 1


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_text_in_which_a_call_is_begun_has_a_whole_one(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, name: str
) -> None:
    form = FORMATS[name]
    spec = reply_spec(smollm_tokenizer, calls=calls(form, required=False))
    assert spec is not None
    grammar = compiler.submit(spec).result()

    def takes(text: str) -> bool:
        tokens = [*smollm_tokenizer.encode(text), EOS[0]]
        return grammar.start().fitting(tokens) == len(tokens)

    good = form.call_text("get_weather", '{"city": "Kisumu"}')
    assert takes("Hello, a < b [x] {y}.")
    assert takes(good)
    assert form.bare or takes(f"Let me see.\n{good}")
    assert not takes(good.replace("get_weather", "launch_rocket"))
    assert not takes(good.replace("city", "town"))
    assert form.bare or not takes(f"I say {form.begin} now")
    if form.bare:
        assert takes(f"{form.begin}{good}")
        assert not takes('{"x": 1}')


def test_a_call_that_begins_with_a_control_token(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    """As Mistral's and Llama's do: no other text can spell it."""
    form = JsonFormat("of a token", begin="<reponame>", end="<file_sep>", listed=True)
    begin, end = smollm_tokenizer.control_id(form.begin), smollm_tokenizer.control_id(form.end)
    spec = reply_spec(smollm_tokenizer, calls=calls(form, required=False))
    assert spec is not None
    grammar = compiler.submit(spec).result()
    encode = smollm_tokenizer.encode
    body = encode('[{"name": "now", "arguments": {}}]')
    for tokens in ([begin, *body, end], [*encode("Hm."), begin, *body, end], encode("Hm. <reponame> is a token.")):
        assert grammar.start().fitting([*tokens, EOS[0]]) == len(tokens) + 1
    for tokens in ([begin, *encode("x")], [end], [begin, *body]):
        assert grammar.start().fitting([*tokens, EOS[0]]) < len(tokens) + 1


def test_a_call_or_an_answer_of_a_form(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    form = FORMATS["hermes"]
    answer = from_json_schema(
        {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}, param=""
    )
    spec = reply_spec(smollm_tokenizer, answer=answer, calls=calls(form, required=False))
    kinds = set()
    for text in replies(compiler, smollm_tokenizer, spec, 12):
        _, shown, found = put_together(parsed(form.parser(), list(text)))
        check(found)
        kinds.add(bool(found))
        assert found or json.loads(shown).keys() == {"ok"}
    assert kinds == {False, True}


@pytest.mark.parametrize("reasoning", REASONING, ids=[form.begin for form in REASONING])
@pytest.mark.parametrize("thinking", Thinking)
def test_thoughts_come_before_what_is_asked_for(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer, reasoning: Any, thinking: Thinking
) -> None:
    spec = reply_spec(
        smollm_tokenizer, answer=from_choices(["yes", "no"], param=""), reasoning=reasoning, thinking=thinking
    )
    assert spec is not None
    grammar = compiler.submit(spec).result()
    opened = "" if thinking is Thinking.OPEN else reasoning.begin

    def takes(text: str) -> bool:
        tokens = [*smollm_tokenizer.encode(text), EOS[0]]
        return grammar.start().fitting(tokens) == len(tokens)

    thought = f"{opened}\nIs it? <b>\n{reasoning.end}\n\n"
    assert takes(f"{thought}yes") == (thinking is not Thinking.OVER)
    assert takes("yes") == (thinking is not Thinking.OPEN)
    assert not takes(f"{thought}perhaps")


def test_calls_behind_thoughts(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    form, reasoning = FORMATS["hermes"], REASONING[0]
    for required in (False, True):
        spec = reply_spec(
            smollm_tokenizer, calls=calls(form, required=required), reasoning=reasoning, thinking=Thinking.POSSIBLE
        )
        assert spec is not None
        text = '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
        tokens = [*smollm_tokenizer.encode(text), EOS[0]]
        assert compiler.submit(spec).result().start().fitting(tokens) == len(tokens)
        both = ReasoningParser(reasoning, Thinking.POSSIBLE, form.parser())
        assert put_together(parsed(both, list(text))) == ("Hm.", "", [("now", "{}")])


def test_free_text_needs_no_grammar(smollm_tokenizer: Tokenizer) -> None:
    assert reply_spec(smollm_tokenizer) is None
    assert reply_spec(smollm_tokenizer, reasoning=REASONING[0], thinking=Thinking.OPEN) is None
    answer = from_choices(["a"], param="")
    assert reply_spec(smollm_tokenizer, answer=answer, reasoning=REASONING[0], thinking=Thinking.OVER) is answer


def test_the_tool_at_fault_is_named(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"x": {"uniqueItems": True}}}
    bad = Tool.of("bad", schema, strict=True, param="tools[1].function.parameters")
    spec = reply_spec(smollm_tokenizer, calls=Calls(FORMATS["hermes"], [TOOLS[0], bad], True, True))
    assert spec is not None
    with pytest.raises(InvalidInput, match="uniqueItems") as caught:
        compiler.submit(spec).result()
    assert caught.value.param == "tools[1].function.parameters"
