"""Tokens per second with and without drafts, on the same prompts, in turn.

bench_speculation.py PACKAGE [--rounds N] [--json FILE]

Two engines answer each prompt greedily, one after the other, round by round; a ratio is the median of the ratios within
a round. Time to read the prompt is left out. Answers are compared too: on a quantized model a near-tie may fall the
other way, because kernels round differently when a run has more positions. Where two answers part, the table says by
how many nats the plain engine preferred its token; from there on each goes its own way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from greedy_answers import Answer, tie

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.model import Model, default_settings
from edgeai.package.package import Package

TOKENS = 160
ALTERNATIVES = 20  # of a token, whose log probabilities are known
NOTICE = """\
Clinic notice, Monday. The clinic at Lake Road opens at 8:00 and closes at 16:30 from Monday to Friday. On Saturday
it opens at 9:00 and closes at 12:00. Vaccinations for children under five are given every Tuesday and Thursday
morning in room 4. Please bring the yellow card and arrive before 10:00. Sister Amina Odhiambo is in charge of
vaccinations; her telephone number is 0700 555 014. Medicines are given out in room 2 between 10:00 and 15:00.
Patients with fever or cough are asked to wait outside under the tree and to wear a mask. Water from the new well
behind the building is safe to drink after it has been boiled for one minute. The ambulance can be called at any
hour on 0700 555 999. In the week of 12 May the clinic is closed on Wednesday, because the roof of the waiting room
will be repaired."""

TASKS = {
    "summarise": f"Summarise the following text in a few sentences. Use the words of the text.\n\n{NOTICE}",
    "edit": f"Repeat the following text exactly, but replace Amina Odhiambo with Grace Wanjiru.\n\n{NOTICE}",
    "question": f"{NOTICE}\n\nQuote the sentences that say when the clinic is open and where medicines are given out.",
    "free 1": "Write a story about a girl who finds a map in an old library.",
    "free 2": "Explain why the sky is blue and why sunsets are red.",
    "free 3": "Give me advice for planting a vegetable garden in a dry place.",
}


@dataclass(slots=True)
class Row:
    """What one task gave."""

    task: str
    tokens_per_second: float
    plain: float
    ratio: float
    accepted: float  # accepted drafted tokens for each run
    parted: float | None  # nats between both tokens where the answers part; None where they never do


def greedy(tokens: int, *, logprobs: int | None = None) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0, repetition_penalty=1.0, logprobs=logprobs)


def with_alternatives(engine: Engine, prompt: list[int], tokens: int) -> Answer:
    """The answer once more, with the log probabilities of the likeliest tokens; they would cost time in `answer`."""
    engine.add("alternatives", prompt, greedy(tokens, logprobs=ALTERNATIVES))
    outputs = []
    while engine.has_work:
        outputs += [output for _, output in engine.step()]
    likely = [{str(each.token_id): each.logprob for each in output.top_logprobs} for output in outputs]
    return Answer(200, tokens=names(output.token_id for output in outputs), likely=tuple(likely))


def names(tokens: Iterable[int]) -> tuple[str, ...]:
    return tuple(map(str, tokens))


def answer(engine: Engine, prompt: list[int], tokens: int) -> tuple[float, list[int]]:
    """Tokens per second after the first token, and the tokens."""
    engine.add("bench", prompt, greedy(tokens))
    output: list[int] = []
    first = 0.0
    while engine.has_work:
        for _, token in engine.step():
            output.append(token.token_id)
        if output and not first:
            first, start = time.perf_counter(), len(output)
    return (len(output) - start) / (time.perf_counter() - first), output


def measure(name: str, text: str, model: Model, engines: tuple[Engine, Engine], rounds: int) -> Row:
    prompt = model.encode_chat([{"role": "user", "content": text}])
    drafting, plain = engines
    speeds = []
    before = drafting.stats()
    for _ in range(rounds):
        fast, ours = answer(drafting, prompt, TOKENS)
        slow, _ = answer(plain, prompt, TOKENS)
        speeds.append((fast, slow))
    stats = drafting.stats()
    accepted = stats.accepted_tokens - before.accepted_tokens
    runs = stats.generated_tokens - before.generated_tokens - accepted
    return Row(
        name,
        round(float(np.median([fast for fast, _ in speeds])), 1),
        round(float(np.median([slow for _, slow in speeds])), 1),
        round(float(np.median([fast / slow for fast, slow in speeds])), 3),
        round(accepted / runs, 2),
        tie(with_alternatives(plain, prompt, TOKENS), Answer(200, tokens=names(ours))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    package = Package.open(args.package)
    settings = default_settings(package.manifest, max_rows=1, max_context=2048)
    model = Model.load(package, settings)
    plain = Engine(package.graph, model.engine.shape, replace(settings, draft_tokens=0))
    answer(model.engine, list(range(10, 40)), 16)  # both are warm
    answer(plain, list(range(10, 40)), 16)
    print("| task | with drafts, tokens/s | without | ratio | accepted for each run | answers part at, nats |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name, text in TASKS.items():
        row = measure(name, text, model, (model.engine, plain), args.rounds)
        rows.append(row)
        parted = "same answer" if row.parted is None else f"{row.parted:.3f}"
        print(
            f"| {row.task} | {row.tokens_per_second} | {row.plain} | {row.ratio:.2f}x | {row.accepted} | {parted} |",
            flush=True,
        )
    if args.json:
        document = {"rows": [{name: getattr(row, name) for name in Row.__slots__} for row in rows]}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
