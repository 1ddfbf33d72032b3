"""Questions whose answers are known, for a server that is treated badly."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from http.client import HTTPException

from greedy_answers import Answer, ask
from server_client import chat

TOLERANCE = 0.25  # log probability: what kernels' rounding may move; a wrong block moves whole units
CLEAR = 1.0  # by which each token of a golden answer leads: no near-tie that rounding could decide
_WORDS = """water clinic answer always person family doctor please village open hour child number table river mountain
letter window garden winter summer morning bread silver yellow market station bridge island music paper"""
WORDS = _WORDS.split()


def rules(seed: int) -> str:
    """A list of words with numbers, one for each line, the same for the same seed."""
    chance = random.Random(seed)
    return "".join(f"{word}: {chance.randrange(1000, 10000)}\n" for word in chance.sample(WORDS, 24))


def quotation(seed: int) -> str:
    """A list and its beginning once more: what follows stands there already, so the answer is sure if it was read."""
    text, lines = rules(seed), random.Random(seed).randrange(3, 20)
    again = "".join(text.splitlines(keepends=True)[:lines])
    return f"{text}\nThe same list once more:\n\n{again}"


class NoRoom(RuntimeError):
    """A server that is too busy to answer now."""


@dataclass(frozen=True)
class Golden:
    """A question and what is right to answer."""

    seed: int
    answer: Answer

    def check(self, base_url: str, *, key: str = "any") -> Answer:
        """Ask again. Raises RuntimeError for anything else than the right answer, `NoRoom` when there is none now."""
        answer = ask_quotation(base_url, self.seed, key=key)
        if answer.tokens != self.answer.tokens:
            raise RuntimeError(f"answered {answer.tokens} instead of {self.answer.tokens}")
        apart = max(abs(a - b) for a, b in zip(answer.logprobs, self.answer.logprobs, strict=True))
        if apart > TOLERANCE:
            raise RuntimeError(f"right tokens, but their log probabilities are {apart:.2f} off")
        return answer


def ask_quotation(base_url: str, seed: int, *, key: str = "any") -> Answer:
    """The greedy continuation of that seed's text. Raises RuntimeError where there is none."""
    try:
        answer = ask(base_url, quotation(seed), max_tokens=12, alternatives=2, key=key)
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"no answer: {error}") from error
    if answer.status in (429, 503):
        raise NoRoom(f"told to come again: status {answer.status}")
    if answer.status != 200:
        raise RuntimeError(f"no answer: status {answer.status}")
    return answer


def stream(base_url: str, seed: int) -> None:
    """A client that reads until the answer or the server ends."""
    system = {"role": "system", "content": rules(seed)}
    with contextlib.suppress(RuntimeError, OSError, HTTPException):  # the server was killed: what this is for
        chat(base_url, "Why is the sky blue?", before=[system], max_tokens=200)


def goldens(base_url: str, count: int, *, key: str = "any") -> list[Golden]:
    """Questions whose answers no rounding can change. Raises RuntimeError when the model has too few of them."""
    found: list[Golden] = []
    for seed in range(40 * count):
        answer = ask_quotation(base_url, seed, key=key)
        if answer.lead > CLEAR:
            found.append(Golden(seed, answer))
        if len(found) == count:
            return found
    raise RuntimeError(f"only {len(found)} of {40 * count} answers are clear enough to be compared")
