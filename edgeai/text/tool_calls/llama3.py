"""Llama 3.1 to 3.3: an object as the whole reply, with "parameters", sometimes behind a control token.

    {"name": "get_weather", "parameters": {"city": "Kisumu"}}
    <|python_tag|>{"name": "get_weather", "parameters": {"city": "Kisumu"}}

Several calls are separated by semicolons.
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

LLAMA3 = JsonFormat("llama3", begin="<|python_tag|>", arguments="parameters", separator="; ", bare=True)
