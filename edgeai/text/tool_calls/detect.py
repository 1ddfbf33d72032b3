"""Which format a model was taught: told from what its chat template does with tools, unless the package names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeai.recipe import ToolFormat
from edgeai.text.chat_template import ChatTemplate
from edgeai.text.tool_calls.gemma import GEMMA
from edgeai.text.tool_calls.granite import GRANITE, PHI4
from edgeai.text.tool_calls.hermes import HERMES
from edgeai.text.tool_calls.json_format import JsonFormat
from edgeai.text.tool_calls.llama3 import LLAMA3
from edgeai.text.tool_calls.mistral import MISTRAL, MISTRAL_V3
from edgeai.text.tool_calls.smollm2 import SMOLLM2

FORMATS: Mapping[str, JsonFormat] = {
    form.name: form for form in (HERMES, SMOLLM2, LLAMA3, MISTRAL, MISTRAL_V3, GRANITE, PHI4, GEMMA)
}
GEMMA_TURN = "<start_of_turn>"
TOOL_VARIABLES = frozenset({"tools", "xml_tools"})

# The first that a template has in its text; longer marks stand before those that they contain.
_MARKS: tuple[tuple[str, JsonFormat], ...] = (
    ("<tool_call>", HERMES),
    ("[TOOL_CALLS] [", MISTRAL_V3),
    ("[TOOL_CALLS]", MISTRAL),
    ("<|/tool_call|>", PHI4),
    ("<|tool_call|>", GRANITE),
    ("<|python_tag|>", LLAMA3),
    ('"parameters": dictionary of argument name and its value', LLAMA3),
)


@dataclass(frozen=True, slots=True)
class ToolPrompting:
    """How a model is told of tools: in which format, and whether its chat template does it."""

    form: JsonFormat
    native: bool


def tool_prompting(template: ChatTemplate, name: ToolFormat | None) -> ToolPrompting:
    """By the template, or in the format of this name, as a recipe gives it."""
    form = native_format(template)
    if name is not None:
        return ToolPrompting(FORMATS[name], bool(template.variables & TOOL_VARIABLES))
    taught_none = GEMMA if GEMMA_TURN in template.source else HERMES
    return ToolPrompting(form or taught_none, form is not None)


def native_format(template: ChatTemplate) -> JsonFormat | None:
    """The format in which the template itself writes tools and calls; None for one that knows of neither."""
    if not template.variables & TOOL_VARIABLES:
        return None
    return next((form for mark, form in _MARKS if mark in template.source), None)
