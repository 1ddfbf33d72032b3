"""The golden prompt: a question whose greedy answer is known, to tell whether a model computes what it should.

Kernels round differently from one processor, thread count or cache format to another, so that an answer may part from
the expected one where two tokens are nearly as likely. That is no error. What is computed wrongly gives the expected
token a logit far below the best one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.model import Model
from edgeai.recipe import Strict
from edgeai.text.prompt import encode_chat
from edgeai.tuning.profile import Golden

ANSWER_TOKENS = 16
NEAR_TIE = 1.0  # logits; the rounding of weights and activations to 4 and 8 bits moves them by some tenths


class Answer(Strict):
    """What a model answered.

    `gap`: how far, in logits, the expected token was behind the best one where the answer first parts from what was
    expected. Where it does not, or nothing was, the last token counts, as the whole text read at once has it: reading
    and writing then agree. None: that is not a number.
    """

    tokens: tuple[int, ...]
    tokens_per_second: float  # 0: too few tokens to tell
    gap: float | None

    @property
    def wrong(self) -> bool:
        """Whether this is another answer than was expected, and not for a near-tie."""
        return self.gap is None or self.gap > NEAR_TIE


def question_tokens(model: Model, question: str) -> list[int]:
    """As quality cards ask: without the recipe's system prompt, or as a text to continue where there is no template."""
    add_bos = model.manifest.tokens.add_bos
    if model.template is None:
        return model.tokenizer.encode(f"Question: {question}\nAnswer:", add_bos=add_bos)
    messages = [{"role": "user", "content": question}]
    return encode_chat(model.tokenizer, model.template, messages, add_bos=add_bos)


def ask(model: Model, golden: Golden) -> Answer:
    """The greedy answer of an idle model, held against what is expected, if anything is."""
    engine, prompt = model.engine, question_tokens(model, golden.question)
    tokens: list[int] = []
    times: list[float] = []
    with engine_busy(engine, ["question"]):
        engine.add("question", prompt, SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0))
        while engine.has_work:
            tokens += [output.token_id for _, output in engine.step()]
            times.append(time.perf_counter())
    steps: Sequence[float] = list(np.diff(times))[-(len(tokens) - 1) :]  # those before have read the prompt
    speed = 1 / float(np.median(steps)) if len(tokens) > 1 else 0.0
    expected = golden.tokens or (_tokens_of(model, golden.text, tokens) if golden.text else tokens)
    gap = _gap(model, prompt, tokens, expected)
    return Answer(tokens=tuple(tokens), tokens_per_second=round(speed, 2), gap=gap)


@contextmanager
def engine_busy(engine: Engine, names: Sequence[str], *, drafts: bool = False) -> Iterator[None]:
    """Requests of these names run in the block, each token in a step of its own unless `drafts`; none stays behind."""
    planner, most = engine.drafts, engine.drafts.most
    planner.most = most if drafts else 0
    try:
        yield
    finally:
        planner.most = most
        for name in names:
            engine.cancel(name)


def _tokens_of(model: Model, text: str, tokens: Sequence[int]) -> Sequence[int]:
    """Tokens of an expected text, or the answer's own where it cannot be told that they differ.

    That is where the texts agree as far as both go, but for a character cut in half, or part within a word, which may
    be split in two ways; and without a template, where the text has lost the space that it began with.
    """
    got = model.tokenizer.decode(tokens).strip()
    common = min(len(got), len(text)) - 1
    wanted = model.tokenizer.encode(text, add_bos=False)
    pair = next(((one, other) for one, other in zip(tokens, wanted, strict=False) if one != other), None)
    if got[:common] == text[:common] or pair is None or model.template is None:
        return tokens
    one, other = (model.tokenizer.decode([token]) for token in pair)
    return tokens if one.startswith(other) or other.startswith(one) else wanted


def _gap(model: Model, prompt: Sequence[int], tokens: Sequence[int], expected: Sequence[int]) -> float | None:
    pairs = enumerate(zip(tokens, expected, strict=False))
    last = min(len(tokens), len(expected)) - 1
    place = next((place for place, (got, wanted) in pairs if got != wanted), last)
    runner, text = model.engine.runner, [*prompt, *expected[:place]]
    runner.arena.grow(0, len(text))
    try:
        logits = runner.score(0, text, 0)[-1]
    finally:
        runner.arena.release(0)
    gap = float(logits.max() - logits[expected[place]])
    return gap if math.isfinite(gap) else None
