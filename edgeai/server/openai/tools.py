"""The tools of a request: which of them may be called, and whether one has to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeai.errors import InvalidInput
from edgeai.grammar.reply import Calls, Tool
from edgeai.server.protocol import ChatRequest
from edgeai.server.tool_protocol import FunctionDefinition
from edgeai.text.tool_calls.json_format import JsonFormat


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What may be called in an answer; `legacy` answers in the words of `functions`."""

    tools: Sequence[Tool]
    described: Sequence[dict[str, Any]]  # as prompts have them
    required: bool
    parallel: bool
    legacy: bool

    def calls(self, form: JsonFormat) -> Calls:
        """For the grammar of the reply."""
        return Calls(form, self.tools, self.required, self.parallel)


def requested_tools(body: ChatRequest) -> ToolUse | None:
    """None where nothing may be called. Raises `InvalidInput` for choices that the tools do not allow."""
    legacy = not body.tools and bool(body.functions)
    given = [tool.function for tool in body.tools or []] or list(body.functions or [])
    _check_names(given, "functions" if legacy else "tools")
    choice, param = (body.function_call, "function_call") if legacy else (body.tool_choice, "tool_choice")
    chosen, required = _chosen(given, "auto" if choice is None else choice, param)
    if not chosen:
        return None
    where = "functions[{}].parameters" if legacy else "tools[{}].function.parameters"
    tools = [
        Tool.of(one.name, one.parameters, strict=bool(one.strict), param=where.format(given.index(one)))
        for one in chosen
    ]
    named = required and choice != "required"  # a named function is called once
    parallel = body.parallel_tool_calls is not False and not legacy and not named
    return ToolUse(tools, [_described(one) for one in chosen], required, parallel, legacy)


def _check_names(given: Sequence[FunctionDefinition], param: str) -> None:
    names = [one.name for one in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"there are two functions named {twice!r}", param=param)


def _chosen(given: Sequence[FunctionDefinition], choice: Any, param: str) -> tuple[Sequence[FunctionDefinition], bool]:
    """The functions that may be called, and whether one must be."""
    if choice == "none":
        return [], False
    if choice == "auto":
        return given, False
    if choice == "required" and param == "tool_choice":
        if not given:
            raise InvalidInput("a call is required, but there are no tools", param=param)
        return given, True
    name = _named(choice)
    if name is None:
        forms = 'use "none", "auto", "required" or {"type": "function", "function": {"name": ...}}'
        raise InvalidInput(f"{param} cannot be {choice!r:.100}", forms, param=param)
    found = [one for one in given if one.name == name]
    if not found:
        raise InvalidInput(f"{param} names {name!r}, which is not among the tools", param=param)
    return found, True


def _named(choice: Any) -> str | None:
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _described(function: FunctionDefinition) -> dict[str, Any]:
    described: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        described["description"] = function.description
    described["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": described}
