"""OpenAI's clients, which check every answer against OpenAI's own types, and try nothing twice: a failure is seen.

Two things it cannot check: pieces of a streamed completion, for its types leave out that `finish_reason` is null until
the last (`lenient`), and vectors in base64, which it asks for by itself and decodes after the check.
"""

from __future__ import annotations

from typing import Any

import openai

from tests.fixtures.patience import PATIENCE

OPTIONS: Any = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE, "_strict_response_validation": True}


def strict_client(url: str) -> openai.OpenAI:
    """For the server at `url`."""
    return openai.OpenAI(base_url=f"{url}/v1", **OPTIONS)


def strict_async_client(url: str) -> openai.AsyncOpenAI:
    """The same for coroutines."""
    return openai.AsyncOpenAI(base_url=f"{url}/v1", **OPTIONS)


def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """The same client without the check."""
    return client.copy(_extra_kwargs={"_strict_response_validation": False})
