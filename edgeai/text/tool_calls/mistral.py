"""Mistral 7B v0.3, Nemo and later: a JSON list behind a control token, which ends the reply.

    [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Kisumu"}}]

Models with a SentencePiece vocabulary put a space before the list. Templates want ids of nine letters or digits.
"""

from __future__ import annotations

from edgeai.text.tool_calls.json_format import JsonFormat

MISTRAL = JsonFormat("mistral", begin="[TOOL_CALLS]", listed=True)
MISTRAL_V3 = JsonFormat("mistral-v3", begin="[TOOL_CALLS]", before=" ", listed=True)
