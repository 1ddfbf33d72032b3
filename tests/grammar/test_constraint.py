"""What the engine relies on: masks over drafts, forced tokens, and constraints that do not know of each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgeai.errors import InvalidInput
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.constraint import GrammarConstraint
from edgeai.grammar.spec import framed, from_choices, from_grammar, from_json_schema, from_regex
from edgeai.text import Tokenizer
from tests.fixtures.grammars import schema_cases
from tests.fixtures.sentencepieces import rebuilt
from tests.grammar.conftest import EOS
from tests.server.scripted import EOS as BYTE_EOS
from tests.server.scripted import byte_tokenizer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}


@pytest.fixture
def weather(compiler: GrammarCompiler) -> GrammarConstraint:
    return compiler.submit(from_json_schema(WEATHER, param="")).result().start()


def commit_all(constraint: GrammarConstraint, tokens: list[int]) -> None:
    for token in tokens:
        assert constraint.masks(())[0][token]
        constraint.commit(token)


def test_masks_over_a_draft_are_those_met_one_by_one(weather: GrammarConstraint, smollm_tokenizer: Tokenizer) -> None:
    text = smollm_tokenizer.encode('{"city": "Nairobi", "unit": "celsius"}')
    for start in range(len(text)):
        for length in range(4):
            draft = [*text, EOS[0]][start : start + length]
            masks = weather.masks(draft)
            assert len(masks) == 1 + len(draft)
            assert all(mask[token] for mask, token in zip(masks, draft, strict=False))
            assert np.array_equal(masks[0], weather.masks(())[0])  # the state is as it was
        ahead = weather.masks(text[start : start + 1])[1]
        weather.commit(text[start])
        assert np.array_equal(ahead, weather.masks(())[0])
    assert np.flatnonzero(weather.masks(())[0]).tolist() == sorted(EOS)


def test_what_can_only_go_on_in_one_way_is_forced(weather: GrammarConstraint, smollm_tokenizer: Tokenizer) -> None:
    decode = smollm_tokenizer.decode
    assert '{"city": "'.startswith(decode(weather.forced(20)))
    assert decode(weather.forced(20)) != ""
    assert weather.forced(20)[:2] == weather.forced(2)
    commit_all(weather, smollm_tokenizer.encode('{"city": "Nairobi", "unit": "cel'))
    forced = weather.forced(20)
    assert decode(forced) == 'sius"}'
    assert len(weather.masks(forced)) == 1 + len(forced)
    assert [weather.over(forced[:count]) for count in range(len(forced) + 1)] == [False] * len(forced) + [True]
    commit_all(weather, smollm_tokenizer.encode('sius"}'))
    assert weather.over(())
    assert weather.forced(20) == []  # only the end is left, and need not be said


def test_drafts_are_cut_where_they_leave_the_grammar(weather: GrammarConstraint, smollm_tokenizer: Tokenizer) -> None:
    good, bad = smollm_tokenizer.encode('{"city": "Rome"'), smollm_tokenizer.encode(" beer")
    assert weather.fitting(good) == len(good)
    assert weather.fitting([*good, *bad]) == len(good)
    assert weather.fitting(bad) == weather.fitting([]) == 0
    commit_all(weather, smollm_tokenizer.encode('{"city": "Rome", "unit": "celsius'))
    assert weather.fitting([*smollm_tokenizer.encode('"}'), EOS[0], *good]) == 2


def test_constraints_of_one_grammar_do_not_know_of_each_other(
    compiler: GrammarCompiler, smollm_tokenizer: Tokenizer
) -> None:
    grammar = compiler.submit(from_json_schema(WEATHER, param="")).result()
    one, other = grammar.start(), grammar.start()
    commit_all(one, smollm_tokenizer.encode('{"city": "'))
    assert np.array_equal(other.masks(())[0], grammar.start().masks(())[0])
    assert not np.array_equal(one.masks(())[0], other.masks(())[0])


def test_control_tokens_are_never_text(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    constraint = compiler.submit(from_regex(r"(.|\n)*", param="")).result().start()
    allowed = set(np.flatnonzero(constraint.masks(())[0]).tolist())
    assert allowed & smollm_tokenizer.control_tokens == set(EOS)
    assert len(allowed) > 48000


def test_other_vocabularies() -> None:
    """One token for each byte, and SentencePiece's with its spaces and bytes."""
    schema = {"type": "object", "properties": {"é": {"enum": ["ja", "nö"]}}, "required": ["é"]}
    for tokenizer, eos in [(byte_tokenizer(), BYTE_EOS), (rebuilt("bpe"), 2)]:
        constraint = GrammarCompiler(tokenizer, [eos]).submit(from_json_schema(schema, param="")).result().start()
        said: list[int] = []
        while (token := int(np.flatnonzero(constraint.masks(())[0])[-1])) != eos:
            constraint.commit(token)
            said.append(token)
        assert tokenizer.decode(said) in ('{"é": "ja"}', '{"é": "nö"}')


def test_text_that_no_token_spells_is_an_error() -> None:
    tokenizer = rebuilt("unigram")
    for text in ("\U00012000", "a\U00012000"):
        with pytest.raises(InvalidInput, match="cannot spell") as caught:
            constraint = GrammarCompiler(tokenizer, [2]).submit(from_choices([text], param="choice")).result().start()
            constraint.commit(next(token for token in range(700) if tokenizer.token_bytes(token) == b"a"))
            constraint.masks(())
        assert caught.value.param == "choice"


def accepts(compiler: GrammarCompiler, tokenizer: Tokenizer, spec: object, text: str) -> bool:
    constraint = compiler.submit(spec).result().start()  # type: ignore[arg-type]
    tokens = [*tokenizer.encode(text), EOS[0]]
    return constraint.fitting(tokens) == len(tokens)


def test_regular_expressions_choices_and_grammars(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    def fits(spec: object, text: str) -> bool:
        return accepts(compiler, smollm_tokenizer, spec, text)

    assert fits(from_regex(r"[0-9]{3}/[a-z]+\n", param=""), "123/abc\n")
    assert not fits(from_regex(r"[0-9]{3}/[a-z]+\n", param=""), "123abc\n")
    assert fits(from_choices(["yes", 'no "never"'], param=""), 'no "never"')
    assert not fits(from_choices(["yes", "no"], param=""), "maybe")
    lark = 'start: "SELECT " NAME " FROM " NAME\nNAME: /[a-z]+/'
    gbnf = 'root ::= "SELECT " name " FROM " name\nname ::= [a-z]+'
    for text in (lark, gbnf):
        assert fits(from_grammar(text, param=""), "SELECT name FROM patients")
        assert not fits(from_grammar(text, param=""), "DELETE FROM patients")


def test_a_frame_goes_around_a_grammar(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    frame = 'start: ("<think>" thought)? @answer\nthought[lazy]: /(.|\\n)*<\\/think>\\n\\n/'
    for spec, answer in [
        (from_json_schema(WEATHER, param=""), '{"city": "Rome", "unit": "celsius"}'),
        (from_choices(["yes", "no"], param=""), "yes"),
        (from_regex("[a-c]+", param=""), "abc"),
    ]:
        constraint = compiler.submit(framed(frame, {"answer": spec}, param="")).result().start()
        thought = smollm_tokenizer.encode(f"<think>What {{now}}?</think>\n\n{answer}")
        assert constraint.fitting([*thought, EOS[0]]) == len(thought) + 1
        constraint = compiler.submit(framed(frame, {"answer": spec}, param="")).result().start()
        assert constraint.fitting(smollm_tokenizer.encode(answer)) == len(smollm_tokenizer.encode(answer))


def test_forced_tokens_are_allowed_everywhere(compiler: GrammarCompiler, smollm_tokenizer: Tokenizer) -> None:
    for case in schema_cases()[::10]:
        constraint = compiler.submit(from_json_schema(case.schema, param="")).result().start()
        rng = np.random.default_rng(len(case.name))
        for _ in range(40):
            forced = constraint.forced(8)
            assert constraint.fitting(forced) == len(forced)
            allowed = np.flatnonzero(constraint.masks(forced)[0])
            token = forced[0] if forced else int(rng.choice(allowed))
            if token in EOS:
                break
            constraint.commit(token)
