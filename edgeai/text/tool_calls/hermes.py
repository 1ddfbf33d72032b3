"""Hermes 2 Pro, Qwen 2.5 and 3, SmolLM3, and models that were taught no format: JSON in tags, a pair for each call.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Kisumu"}}
    </tool_call>

SmolLM2 puts a list of calls between the tags, which the parser takes as well.
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

HERMES = JsonFormat("hermes", begin="<tool_call>", end="</tool_call>", before="\n", after="\n")
