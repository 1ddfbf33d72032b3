"""The grammar of a whole chat reply: thoughts, then tool calls, text with calls in it, or an answer of a given form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeai.grammar.spec import GrammarSpec, framed, from_json_schema
from edgeai.text.reasoning import ReasoningFormat, Thinking
from edgeai.text.tokenizer import Tokenizer
from edgeai.text.tool_calls.json_format import JsonFormat

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called, and the grammar of its arguments."""

    name: str
    arguments: GrammarSpec

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any] | None, *, strict: bool, param: str) -> Tool:
        """With the JSON schema of its arguments; unless it is strict, keywords that are not supported are ignored.

        `param` names the request's field with the schema. Raises `InvalidInput` as `from_json_schema` does.
        """
        schema = {"type": "object", **parameters} if parameters else NO_PARAMETERS
        return cls(name, from_json_schema(schema, param=param, lenient=not strict))


@dataclass(frozen=True, slots=True)
class Calls:
    """Which tools may be called in a reply, and whether there has to be a call."""

    form: JsonFormat
    tools: Sequence[Tool]
    required: bool
    parallel: bool


def reply_spec(
    tokenizer: Tokenizer,
    *,
    answer: GrammarSpec | None = None,
    calls: Calls | None = None,
    reasoning: ReasoningFormat | None = None,
    thinking: Thinking = Thinking.OVER,
) -> GrammarSpec | None:
    """What the engine has to hold a reply to; None where anything goes."""
    if calls is None and (answer is None or reasoning is None or thinking is Thinking.OVER):
        return answer

    def symbol(marker: str) -> str | None:
        token = tokenizer.control_id(marker)
        return None if token is None else f"<[{token}]>"

    named: dict[str, GrammarSpec] = {} if answer is None else {"answer": answer}
    lines = []
    reply = "@answer"
    if calls is not None:
        names = [tool.name for tool in calls.tools]
        lines.append(calls.form.rules(names, symbol, parallel=calls.parallel))
        named |= {f"tool_{number}": tool.arguments for number, tool in enumerate(calls.tools)}
        reply = "calls" if calls.required else "mixed" if answer is None else "(calls | @answer)"
    if reasoning is not None and thinking is not Thinking.OVER:
        lines.append(_thoughts(reasoning, symbol(reasoning.begin), symbol(reasoning.end)))
        reply = f"thoughts {reply}" if thinking is Thinking.OPEN else f"(opened_thoughts)? {reply}"
    param = "tools" if answer is None else answer.param
    markers = () if reasoning is None else (reasoning.end,)
    return framed("\n".join([f"start: {reply}", *lines]), named, param=param, markers=markers)


def _thoughts(form: ReasoningFormat, begin: str | None, end: str | None) -> str:
    """Rules `thoughts`, up to the end mark and the space behind it, and `opened_thoughts`, with the begin mark too."""
    lines = [f"opened_thoughts: {begin or json.dumps(form.begin)} thoughts", r"SPACE: /[ \t\r\n]*/"]
    if end is not None:
        return "\n".join([*lines, r"THOUGHT: /(.|\n)*/", f"thoughts: THOUGHT {end} SPACE"])
    escaped = re.escape(form.end).replace("/", r"\/")
    return "\n".join([*lines, f"ended[lazy]: /(.|\\n)*{escaped}/", "thoughts: ended SPACE"])
