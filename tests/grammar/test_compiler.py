"""What is refused and in which words, what hostile grammars may take, and what is kept."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from edgeai.errors import InvalidInput, Overloaded
from edgeai.grammar import compiler as compiler_module
from edgeai.grammar.compiler import KEPT, MAX_WAITING, GrammarCompiler
from edgeai.grammar.spec import (
    MAX_CHARACTERS,
    GrammarSpec,
    framed,
    from_choices,
    from_grammar,
    from_json_schema,
    from_regex,
)
from edgeai.text import Tokenizer
from tests.grammar.conftest import EOS


def schema(**keywords: Any) -> GrammarSpec:
    return from_json_schema(keywords, param="response_format")


REFUSED = [
    (schema(type="array", uniqueItems=True), "uniqueItems"),
    (schema(type="object", **{"if": {}}), '"if"'),
    (schema(type="string", minLength=5, maxLength=3), "Unsatisfiable"),
    (schema(allOf=[{"type": "string"}, {"type": "number"}]), "incompatible types"),
    (schema(type="object", properties={"a": False}, required=["a"]), "'a' is unsatisfiable"),
    (schema(**{"$ref": "#/$defs/missing"}), "/\\$defs/missing"),
    (schema(**{"$ref": "https://example.org/schema"}), "example.org"),
    (schema(type="string", format="chess-move"), "chess-move"),
    (schema(type="string", pattern="(?=a)b"), "look-around"),
    (schema(type="text"), "Invalid type"),
    (schema(oneOf=[{"type": "string"}, {"type": "string", "maxLength": 3}]), "oneOf"),
    (from_regex("a(", param="structured_outputs.regex"), "unclosed group"),
    (from_regex("(?<=a)b", param="structured_outputs.regex"), "look-around"),
    (from_grammar("start: missing", param="structured_outputs.grammar"), 'unknown name: "missing"'),
    (from_grammar('start: "a', param="structured_outputs.grammar"), "line 1"),
]


@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refusals_name_what_is_wrong_and_where(compiler: GrammarCompiler, spec: GrammarSpec, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        compiler.submit(spec).result()
    assert caught.value.param == spec.param
    assert "\n" not in str(caught.value)


def test_what_is_no_schema_or_grammar_at_all() -> None:
    for wrong in (lambda: from_json_schema([], param="x"), lambda: from_choices([], param="x")):
        with pytest.raises(InvalidInput) as caught:
            wrong()
        assert caught.value.param == "x"
    with pytest.raises(InvalidInput, match="cannot be read"):
        from_grammar("root ::= [", param="x")
    with pytest.raises(InvalidInput, match="beyond 2"):
        from_json_schema({"properties": {"a": {"enum": [1, 2**53 + 1]}}}, param="x")
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"items": deep}
    with pytest.raises(InvalidInput, match="levels deep"):
        from_json_schema(deep, param="x")


def test_lenient_schemas_ignore_what_is_not_supported(compiler: GrammarCompiler) -> None:
    given = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    compiler.submit(from_json_schema(given, param="", lenient=True)).result()


def test_size_is_limited(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidInput, match=f"longer than {MAX_CHARACTERS}"):
        compiler.submit(from_regex("a" * MAX_CHARACTERS, param="x"))


HOSTILE = {
    "repeated repetitions": schema(type="string", pattern="((a{1,1000}){1,1000}){1,1000}"),
    "states without number": from_regex("(a|b)*a(a|b){2000}", param=""),
    "many ambiguous parts": from_grammar("start: " + " ".join(["/(a|b)*a(a|b){20}/"] * 30), param=""),
    "optional letters": from_regex("(a?){3000}a{3000}", param=""),
    "a long text": schema(type="string", maxLength=10**9),
    "a long array": schema(type="array", items={"type": "string"}, minItems=10**6),
    "a large enum": schema(enum=[f"value number {number * 7919}" for number in range(9000)]),
    "many alternatives": schema(
        anyOf=[{"type": "object", "properties": {f"k{n}": {}}, "required": [f"k{n}"]} for n in range(2000)]
    ),
    "references that multiply": from_json_schema(
        {
            "$defs": {
                f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"items": {"$ref": f"#/$defs/d{n + 1}"}}]}
                for n in range(300)
            }
            | {"d300": {}},
            "$ref": "#/$defs/d0",
        },
        param="",
    ),
    "products": schema(
        allOf=[{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(4)]} for i in range(8)]
    ),
    "left and right recursion": from_grammar('start: start start | "a"', param=""),
    "empty repetitions": from_grammar('start: x*\nx: y*\ny: "a"*', param=""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_or_cheap(compiler: GrammarCompiler, name: str) -> None:
    """A fraction of a second each on a quiet machine; the limit here is for one that is busy with other things."""
    started = time.process_time()
    try:
        constraint = compiler.submit(HOSTILE[name]).result().start()
        rng = np.random.default_rng(0)
        for _ in range(60):
            token = int(rng.choice(np.flatnonzero(constraint.masks(())[0])))
            if token in EOS:
                break
            constraint.commit(token)
    except InvalidInput:
        pass
    assert time.process_time() - started < 5


def test_compiled_grammars_are_kept_by_what_they_say(smollm_tokenizer: Tokenizer) -> None:
    compiler = GrammarCompiler(smollm_tokenizer, EOS)
    first = compiler.submit(from_choices(["a"], param="x")).result()
    assert compiler.submit(from_choices(["a"], param="x")).result() is first
    assert compiler.submit(framed("start: @b", {"b": from_choices(["a"], param="x")}, param="x")).result() is not first
    for number in range(KEPT):
        compiler.submit(from_choices([str(number)], param="x")).result()
    assert compiler.submit(from_choices(["a"], param="x")).result() is not first


def test_too_many_at_once_are_refused(smollm_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    real = compiler_module._Vocabulary

    def slow(*arguments: Any) -> Any:
        held.wait(60)
        return real(*arguments)

    monkeypatch.setattr(compiler_module, "_Vocabulary", slow)
    compiler = GrammarCompiler(smollm_tokenizer, EOS)
    waiting: list[Future[Any]] = [compiler.submit(from_choices([str(n)], param="x")) for n in range(MAX_WAITING)]
    with pytest.raises(Overloaded, match="grammars are waiting"):
        compiler.submit(from_choices(["one more"], param="x"))
    assert waiting.pop().cancel()  # whoever waited has left
    waiting.append(compiler.submit(from_choices(["in its place"], param="x")))
    held.set()
    assert all(future.result() is not None for future in waiting)
    assert compiler.submit(from_choices(["one more"], param="x")).result() is not None


def test_a_model_without_end_tokens_cannot(smollm_tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="no end token"):
        GrammarCompiler(smollm_tokenizer, ()).submit(from_choices(["a"], param="x")).result()


def test_documents_are_json() -> None:
    for spec in (from_choices(['"'], param=""), from_regex('"/\\n', param=""), schema(type="object")):
        for document in spec.documents():
            assert len(json.loads(document)["grammars"]) == 1
        for document in framed('start: "\\"" @a', {"a": spec}, param="").documents():
            assert [part.get("name") for part in json.loads(document)["grammars"]] == [None, "a"]


def test_the_part_at_fault_is_named(compiler: GrammarCompiler) -> None:
    good, bad = from_choices(["a"], param="good"), from_json_schema({"type": "text"}, param="tools[1]")
    with pytest.raises(InvalidInput, match="Invalid type") as caught:
        compiler.submit(framed("start: @a | @b", {"a": good, "b": bad}, param="tools")).result()
    assert caught.value.param == "tools[1]"
