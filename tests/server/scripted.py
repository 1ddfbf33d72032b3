"""A model that says what it is told to, when it is told to: for faults and timings that a real one has by chance."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from edgeai.engine.request import EngineStats, FinishReason, SamplingParams, TokenOutput
from edgeai.engine.terms import DEFAULT_TERMS, Terms
from edgeai.engine.validation import check_params, check_prompt
from edgeai.errors import Overloaded
from edgeai.model import Chunk
from edgeai.text import ChatTemplate, Detokenizer, StopStrings, Tokenizer, encode_chat
from edgeai.text.token_bytes import BYTE_OF_LETTER

CONTROL = ("<|im_start|>", "<|im_end|>")
EOS = 257
TEMPLATE = """{%- for message in messages -%}
{%- if message.role == "system" and not loop.first -%}
{{ raise_exception("the system message has to come first") }}
{%- endif -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and two control tokens."""
    added = [
        {"id": 256 + i, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, name in enumerate(CONTROL)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": BYTE_OF_LETTER, "merges": []},
    }
    return Tokenizer(json.dumps(document))


@dataclass
class Script:
    """What the model does with a request."""

    text: str = "Hello there."
    prefill: float = 0.0  # seconds before the first token
    delay: float = 0.0  # seconds before every token
    fail_after: int | None = None  # raise `failure` after this many tokens
    failure: Exception = field(default_factory=lambda: RuntimeError("secret detail"))
    rows: int = 4
    queue: int = 64


class ScriptedModel:
    """The interface of `AsyncModel`, as far as the server uses it."""

    def __init__(self, script: Script | None = None, *, context_length: int = 256) -> None:
        self.script = script or Script()
        self.name = "scripted"
        self.context_length = context_length
        self.tokenizer = byte_tokenizer()
        self.template = ChatTemplate(TEMPLATE, {})
        self.manifest = SimpleNamespace(prompt=SimpleNamespace(max_tokens=None, system=None, tool_format=None))
        self.digest = hashlib.sha256(b"scripted").hexdigest()
        self.engine = self
        self.running = self.waiting = self.generated = 0
        self.seen: list[tuple[list[int], SamplingParams]] = []
        self.generated_before: list[int] = []  # each of `seen`
        self.terms: list[Terms] = []
        self.closed = False
        self._rows = asyncio.Semaphore(self.script.rows)

    def require_template(self) -> ChatTemplate:
        return self.template

    def encode_chat(self, messages: list[dict[str, Any]], **extra: Any) -> list[int]:
        return encode_chat(self.tokenizer, self.template, messages, **extra)

    def encode_text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def default_params(self, **overrides: Any) -> SamplingParams:
        return SamplingParams(**{name: value for name, value in overrides.items() if value is not None})

    def stats(self) -> EngineStats:
        return EngineStats(self.running, self.waiting, self.running * 1000, 10_000, 0, 0, self.generated, 0, rows=4)

    async def close(self) -> None:
        self.closed = True

    async def stream(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        stop: Sequence[str] = (),
        *,
        terms: Terms = DEFAULT_TERMS,
        shown: frozenset[int] = frozenset(),
    ) -> AsyncGenerator[Any, None]:
        check_params(params, self.tokenizer.vocab_size)
        check_prompt(prompt, self.tokenizer.vocab_size, self.context_length)
        if self._rows.locked() and self.waiting >= self.script.queue:
            raise Overloaded("the queue is full", "try again soon", retry_after=7)
        self.seen.append((list(prompt), params))
        self.generated_before.append(self.generated)
        self.terms.append(terms)
        self.waiting += 1
        try:
            await self._rows.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            async for chunk in self._speak(params, stop):
                yield chunk
        finally:
            self.running -= 1
            self._rows.release()

    async def _speak(self, params: SamplingParams, stop: Sequence[str]) -> AsyncGenerator[Any, None]:
        await asyncio.sleep(self.script.prefill)
        detokenizer, stops = Detokenizer(self.tokenizer), StopStrings(stop)
        for number, token in enumerate([*self.script.text.encode(), EOS]):
            if number == self.script.fail_after:
                raise self.script.failure
            await asyncio.sleep(self.script.delay)
            self.generated += 1
            reason = FinishReason.STOP if token == EOS else None
            if number + 1 == params.max_tokens and reason is None:
                reason = FinishReason.LENGTH
            text, stopped = stops.push(detokenizer.push(token))
            if reason is not None and not stopped:
                text += stops.finish()
            output = TokenOutput(token, finish_reason=reason)
            yield Chunk(text, (output,), FinishReason.STOP if stopped else reason)
            if stopped or reason:
                return
