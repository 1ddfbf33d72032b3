"""Gemma 2 and 3, which were taught no marks: the form that Google's documentation asks them for, as the whole reply.

    {"name": "get_weather", "parameters": {"city": "Kisumu"}}

https://ai.google.dev/gemma/docs/capabilities/function-calling. FunctionGemma's format is another, and not known here.
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

GEMMA = JsonFormat("gemma", begin="```tool_call", arguments="parameters", separator="; ", bare=True)
