"""Chat templates: the output of transformers, errors in the template's own words, and bounds for hostile templates."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeai.errors import EdgeaiError, InvalidInput, PackageError
from edgeai.sources.gguf import GGUFSource
from edgeai.text import ChatTemplate, template_sandbox
from edgeai.text.template_bounds import MAX_OUTPUT
from edgeai.text.template_sandbox import MAX_STEPS
from tests.fixtures.chats import CHATS, REFUSED, SPECIAL_TOKENS, cases, golden, key, template

USER = [{"role": "user", "content": "Hi"}]


def render(source: str, **variables: object) -> str:
    return ChatTemplate(source, SPECIAL_TOKENS).render(USER, **variables)  # type: ignore[arg-type]


@pytest.mark.parametrize(("style", "chat", "reply"), cases(), ids=[key(*case) for case in cases()])
def test_output_is_that_of_transformers(style: str, chat: str, reply: bool) -> None:
    expected = golden()[key(style, chat, reply)]
    messages, extra = CHATS[chat]
    compiled = ChatTemplate(template(style), SPECIAL_TOKENS)
    if expected == REFUSED:
        with pytest.raises(InvalidInput):
            compiled.render(messages, add_generation_prompt=reply, **extra)
    else:
        assert compiled.render(messages, add_generation_prompt=reply, **extra) == expected


def test_golden_covers_all_cases() -> None:
    assert list(golden()) == [key(*case) for case in cases()]


@pytest.mark.reference
def test_golden_is_still_what_transformers_makes() -> None:
    interpreter = os.environ.get("EDGEAI_REFERENCE_PYTHON")
    if not interpreter:
        pytest.skip("EDGEAI_REFERENCE_PYTHON does not name a Python with transformers")
    script = "from tests.fixtures.chats import make_golden; print(make_golden())"
    repository = Path(__file__).parents[2]
    made = subprocess.run([interpreter, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert golden() == json.loads(made.stdout)


def test_the_template_of_smollm_is_the_one_in_its_file(smollm_source: GGUFSource) -> None:
    assert smollm_source.tokenizer().chat_template == template("smollm2")


def test_refusals_come_in_the_templates_own_words() -> None:
    compiled = ChatTemplate(template("turns"), SPECIAL_TOKENS)
    with pytest.raises(InvalidInput, match="System role not supported") as caught:
        compiled.render([{"role": "system", "content": "x"}])
    assert caught.value.param == "messages"


def test_what_python_says_is_passed_on() -> None:
    with pytest.raises(InvalidInput, match=r"cannot render these messages: TypeError.*NoneType"):
        ChatTemplate(template("smollm2"), {}).render([{"role": "user", "content": None}])


@pytest.mark.parametrize(
    ("source", "words"),
    [("{% for m in messages %}\n{{ m", "line 2"), ("{% endif %}", "line 1"), ("{{ x | nope }}", "nope")],
)
def test_broken_templates_are_found_when_loaded(source: str, words: str) -> None:
    with pytest.raises(PackageError, match=words):
        ChatTemplate(source, {})


def test_variables_and_filters() -> None:
    assert render("{{ bos_token }}{{ pad_token }}{{ documents }}{{ tools }}") == "<s><pad>NoneNone"
    assert render("{{ x | tojson }}", x={"b": "<é>", "a": 1}) == '{"b": "<é>", "a": 1}'
    assert render("{{ x | tojson(indent=2) }}", x=[1]) == "[\n  1\n]"
    assert render("{{ bos_token }}", bos_token="<other>") == "<other>"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", render("{{ strftime_now('%Y-%m-%d') }}"))


def test_loops_keep_their_properties() -> None:
    """Counting the steps turns the sequence into an iterator, which must not show."""
    inner = "{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }};"
    source = "{% for a in x %}" + inner + "{% endfor %}"
    assert render(source, x="ab") == "1/2Falseb;2/2Truea;"
    assert render("{% for a in nothing %}x{% else %}none{% endfor %}") == "none"
    assert render("{% for k, v in x.items() if v %}{{ k }}{% endfor %}", x={"a": 1, "b": 0}) == "a"
    nested = "{% for a in x recursive %}{% if a is string %}{{ a }}{% else %}({{ loop(a) }}){% endif %}{% endfor %}"
    assert render(nested, x=["a", ["b", ["c"]]]) == "a(b(c))"


def test_operators_work_below_the_bounds() -> None:
    source = (
        "{{ 1 + 1 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 'ab' * 2 }} {{ 3 * 'x' }} {{ 2 ** 10 }} {{ 1 ~ 'a' ~ none }}"
    )
    assert render(source) == "2 ab [1, 2] abab xxx 1024 1aNone"
    assert render("{{ 100000 * 100000 + 0.5 }} {{ 'x' * -99999999999 }} {{ 2.5 ** 2 }}") == "10000000000.5  6.25"


def test_generation_marks_leave_no_trace_and_have_their_own_scope() -> None:
    source = "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}"
    assert render(source) == "21"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
        "{% for a in 'x' * 2000 %}{% for b in 'x' * 2000 %}{% set c = a %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 99999999999 }}",
        "{{ 99999999999 * [1] }}",
        "{{ 9 ** 9999 }}",
        "{{ 99 ** 99 ** 99 }}",
        "{% set n = namespace(x='x') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x=['x']) %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% for a in range(20000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% set __budget__ = 1 %}{% for a in range(3) %}{% endfor %}",
        "{{ ''.__class__.__mro__ }}{{ raise_exception.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ 'x'.center(10 ** 9) }}",
        "{{ 'x'.zfill(10 ** 9) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{{ lipsum(10 ** 6) }}",
        "{{ ('a' * 9999999).replace('a', 'b' * 9999999) }}",
        "{{ ('a' * 9999999) | replace('', 'b' * 9999999) }}",
        "{{ ('b' * 9999999).join('a' * 9999999) }}",
        "{{ ['a', 'a'] | map('replace', 'a', 'b' * 9999999) | join('c' * 9999999) }}",
        "{{ (['b' * 9999999] * 9999999) | map('upper') | list }}",
        "{{ ('\n' * 9999999) | indent(9999999) }}",
        "{% set n = namespace(x=['x']) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x={}) %}{% for a in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% for a in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = [n.x, range(9999) | list] %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% for a in range(600) %}{% set n.x = [n.x] %}{% endfor %}"
        "{{ (range(90000) | list + [n.x]) | tojson(indent=4) }}",
        "{% macro f(n) %}{% if n %}{% set a = f(n - 1) %}{% set a = f(n - 1) %}{% endif %}{% endmacro %}{{ f(40) }}",
        "{{ (range(9999) | list | map('string') | map('list') | list) | sum(start=[]) }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ {}['a']['b'] }}",
    ],
)
def test_hostile_templates_are_stopped(source: str) -> None:
    with pytest.raises(EdgeaiError):
        render(source)


def test_bounds_are_far_from_real_chats() -> None:
    messages = [{"role": "user", "content": "x" * 1000}] * 5000
    output = ChatTemplate(template("smollm2"), {}).render(messages)
    assert 5_000_000 < len(output) < MAX_OUTPUT
    assert len(messages) * 100 < MAX_STEPS


def test_a_client_s_tools_cannot_blow_up_a_prompt() -> None:
    """Indented JSON repeats its depth on every line: these few kilobytes would be gigabytes."""
    tool: Any = [1] * 20_000
    for _ in range(800):
        tool = [tool]
    with pytest.raises(InvalidInput, match="characters"):
        ChatTemplate("{{ tools | tojson(indent=4) }}", {}).render([], tools=[{"function": tool}])
    usual = [{"type": "function", "function": {"name": f"f{n}", "parameters": {"type": "object"}}} for n in range(200)]
    assert "f199" in ChatTemplate("{{ tools | tojson(indent=4) }}", {}).render([], tools=usual)


def test_namespaces_are_not_written_out() -> None:
    """Each of these holds the one before twice."""
    source = (
        "{% set n = namespace(x=0) %}{% for a in range(60) %}"
        "{% set m = namespace() %}{% set m.a = n.x %}{% set m.b = n.x %}{% set n.x = m %}{% endfor %}{{ n.x }}"
    )
    assert render(source) == "<Namespace>"


def test_the_steps_of_recursive_loops_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_STEPS", 20_000)
    with pytest.raises(InvalidInput, match="more than 20000 loop steps"):
        render("{% for a in range(9999) recursive %}{{ loop(range(9999)) if a < 3 and loop.depth < 3 }}{% endfor %}")


def test_a_template_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.2)
    with pytest.raises(InvalidInput, match=r"more than 0\.2 seconds"):
        render("{% set s = 'x' * 9999999 %}{% for a in range(99999) %}{% if s == s[1:] %}{% endif %}{% endfor %}")


HOSTILE_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
from edgeai.errors import EdgeaiError
from edgeai.text.chat_template import ChatTemplate
for source in (
    "{{ 'x'.ljust(10 ** 10) }}",
    "{% set n = namespace(x=['x']) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
    "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = n.x + [a ~ 'x' * 9999] %}{% endfor %}",
):
    try:
        ChatTemplate(source, {}).render([])
    except EdgeaiError as error:
        assert "characters" in str(error) or "padded" in str(error), error
    else:
        raise AssertionError(source)
"""


def test_hostile_templates_find_no_memory_to_take() -> None:
    """They are refused by what they ask for, in a process that could not have given it."""
    subprocess.run([sys.executable, "-c", HOSTILE_MEMORY], check=True)


def test_templates_without_end_are_not_compiled() -> None:
    with pytest.raises(PackageError, match="more than 1048576 characters"):
        ChatTemplate("x" * (2**20 + 1), {})
