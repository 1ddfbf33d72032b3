"""Granite 3 and Phi-4-mini: a JSON list behind a control token; Phi ends it with another.

<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Kisumu"}}]
<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Kisumu"}}]<|/tool_call|>
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

GRANITE = JsonFormat("granite", begin="<|tool_call|>", listed=True)
PHI4 = JsonFormat("phi4", begin="<|tool_call|>", end="<|/tool_call|>", listed=True)
