"""What the clients of a soak ask: good questions, bad ones, and good ones by clients that behave badly.

Everything is drawn from a `random.Random`, so that the same seed asks every server the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server_client import SAMPLING
from words import some_words

CHAT = "/v1/chat/completions"
FILES = "/v1/files"
TOO_LARGE = 9 << 20  # bytes: more than the server takes
SYSTEM = "You answer questions about the waterworks. " + some_words(random.Random(0), 300)

TOOL = {
    "type": "function",
    "function": {
        "name": "open_valve",
        "description": "Open a valve of the waterworks.",
        "parameters": {
            "type": "object",
            "properties": {"valve": {"enum": ["north", "south"]}, "percent": {"enum": [25, 50, 100]}},
            "required": ["valve", "percent"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"place": {"enum": ["well", "river", "tank"]}, "safe": {"type": "boolean"}},
    "required": ["place", "safe"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, what may be answered to it, and how its client behaves."""

    kind: str
    body: Mapping[str, Any] | bytes
    expected: frozenset[int] = frozenset({200})  # beside those of a server that has no room now
    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)
    may_be_cut: bool = False  # whether the server may hang up before it was sent as a whole
    pieces: int | None = None  # of the answer, after which the client hangs up; None: it reads to the end
    pause: float = 0.0  # seconds without reading, after the first piece
    valid: Callable[[dict[str, Any]], bool] | None = None  # of a whole answer

    @property
    def stream(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


def chat(
    text: str, *, max_tokens: int, stream: bool = False, system: str | None = None, **fields: Any
) -> dict[str, Any]:
    """The body of a chat completion."""
    before = [{"role": "system", "content": system}] if system else []
    body = {"messages": [*before, {"role": "user", "content": text}], "max_tokens": max_tokens}
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return body | SAMPLING | streamed | fields


def question(chance: random.Random, words: int) -> str:
    """One that nobody has asked before."""
    return f"{chance.randrange(10**9)}: {some_words(chance, words)}. What is to be done?"


def short(chance: random.Random) -> Ask:
    text, tokens = question(chance, chance.randrange(5, 40)), chance.randrange(4, 17)
    return Ask("short", chat(text, max_tokens=tokens, stream=True))


def whole(chance: random.Random) -> Ask:
    text, tokens = question(chance, chance.randrange(5, 40)), chance.randrange(4, 17)
    return Ask("whole", chat(text, max_tokens=tokens), valid=has_text)


def long(chance: random.Random) -> Ask:
    """A prompt of 1,000 to 4,000 tokens."""
    text = question(chance, chance.randrange(1000, 3900))
    return Ask("long", chat(text, max_tokens=8, stream=True))


def shared(chance: random.Random) -> Ask:
    """Everybody's system prompt, which a prefix cache need not read again."""
    return Ask("shared", chat(question(chance, 10), max_tokens=8, stream=True, system=SYSTEM))


def schema(chance: random.Random) -> Ask:
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    body = chat(question(chance, 10), max_tokens=48, response_format=wanted)
    return Ask("json_schema", body, valid=keeps_schema)


def tools(chance: random.Random) -> Ask:
    body = chat(question(chance, 10), max_tokens=64, tools=[TOOL], tool_choice="required")
    return Ask("tools", body, valid=calls_tool)


def cut(chance: random.Random) -> Ask:
    """A client that hangs up in the middle of its answer, or of its prompt."""
    words = chance.choice([20, 20, 20, 1500])
    body = chat(question(chance, words), max_tokens=64, stream=True)
    return Ask("cut", body, pieces=chance.randrange(0, 8))


def slow(chance: random.Random) -> Ask:
    """A client that stops reading for a while; half of them never read on."""
    body = chat(question(chance, 10), max_tokens=64, stream=True)
    return Ask("slow", body, pause=chance.uniform(1, 8), pieces=chance.choice([2, None]))


def malformed(chance: random.Random) -> Ask:
    good = chat("Hello", max_tokens=4)
    forms: list[tuple[int, dict[str, Any] | bytes, dict[str, str]]] = [
        (400, b'{"messages": [', {}),
        (400, b"\xff\xfe\x00", {}),
        (400, b"[" * 5000 + b"]" * 5000, {}),
        (400, b"[" * 5000, {}),
        (400, good | {"messages": "Hello"}, {}),
        (400, good | {"messages": []}, {}),
        (400, good | {"temperature": "hot"}, {}),
        (400, good | {"max_tokens": -1}, {}),
        (400, good | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "pump"}}}}, {}),
        (415, good, {"Content-Encoding": "gzip"}),
        (415, b"messages=Hello", {"Content-Type": "application/x-www-form-urlencoded"}),
    ]
    status, body, headers = chance.choice(forms)
    return Ask("malformed", body, frozenset({status}), headers=headers)


def oversized(chance: random.Random) -> Ask:
    """More than a body may have, or than the context has."""
    if chance.random() < 0.5:
        body = b'{"messages": "' + b"x" * TOO_LARGE + b'"}'
        return Ask("oversized", body, frozenset({413}), may_be_cut=True)
    return Ask("oversized", chat(question(chance, 20_000), max_tokens=4), frozenset({400}))


def unknown_model(chance: random.Random) -> Ask:
    body = chat(question(chance, 5), max_tokens=4, model="nobody-has-this")
    return Ask("unknown model", body, frozenset({404}))


def wrong_key(chance: random.Random) -> Ask:
    headers = {"Authorization": f"Bearer sk-edgeai-{chance.randrange(16**8):08x}-wrong"}
    return Ask("wrong key", chat("Hello", max_tokens=4), frozenset({401}), headers=headers)


def upload(chance: random.Random) -> Ask:
    """A file, which has to be there from the moment of the answer on; on a full disk there is no room (507)."""
    return Ask("upload", chance.randbytes(chance.randrange(100, 20_000)), frozenset({200, 507}), FILES)


Mix = Mapping[Callable[[random.Random], Ask], int]
# How often each is asked, of the sum.
MIX: Mix = {
    short: 40,
    whole: 12,
    long: 6,
    shared: 8,
    schema: 4,
    tools: 4,
    cut: 8,
    slow: 4,
    malformed: 6,
    oversized: 1,
    unknown_model: 3,
    wrong_key: 3,
    upload: 2,
}
# What llama-server understands as edgeai does.
COMMON: Mix = {ask: MIX[ask] for ask in (short, whole, long, shared, schema, cut)}


def draw(chance: random.Random, mix: Mix) -> Ask:
    """The next request of a client."""
    return chance.choices(list(mix), list(mix.values()))[0](chance)


def has_text(answer: dict[str, Any]) -> bool:
    return isinstance(_message(answer).get("content"), str)


def keeps_schema(answer: dict[str, Any]) -> bool:
    """An answer that ended by itself is what the schema wants."""
    if answer["choices"][0]["finish_reason"] == "length":
        return True
    found = json.loads(_message(answer)["content"])
    return set(found) == {"place", "safe"} and found["place"] in ("well", "river", "tank")


def calls_tool(answer: dict[str, Any]) -> bool:
    if answer["choices"][0]["finish_reason"] == "length":
        return True
    wanted = json.loads(_message(answer)["tool_calls"][0]["function"]["arguments"])
    return wanted["valve"] in ("north", "south") and wanted["percent"] in (25, 50, 100)


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message
