"""SmolLM2 1.7B: a JSON list between Hermes' tags. Its chat template knows nothing of tools; a recipe may name it.

<tool_call>[{"name": "get_weather", "arguments": {"city": "Kisumu"}}]</tool_call>
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

SMOLLM2 = JsonFormat("smollm2", begin="<tool_call>", end="</tool_call>", listed=True)
