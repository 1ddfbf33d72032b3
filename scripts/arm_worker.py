"""Runs on an emulated ARM processor, or on this one: reads a prompt, answers greedily, and marks what is counted.

Prints one line of JSON: the processor's features and target, the prompt's length, and the tokens.
Marks are system calls without effect that scripts/count_instructions.c looks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from edgeai.device.profile import read_cpu
from edgeai.device.variants import suitable
from edgeai.engine.config import EngineSettings
from edgeai.model import Model
from edgeai.package.package import Package

MARK = 0x4D000000
PROMPT = "A cistern holds 200 litres and every bucket takes 10. How many buckets is that? Answer in one word."


def mark(number: int) -> None:
    with contextlib.suppress(OSError):  # it is no priority
        os.sched_get_priority_max(MARK + number)


def main() -> None:
    package, tokens = Path(sys.argv[1]), int(sys.argv[2])
    cpu = read_cpu()
    with Model.load(Package.open(package), EngineSettings(threads=1, max_context=256, draft_tokens=0)) as model:
        prompt = model.encode_chat([{"role": "user", "content": PROMPT}])
        params = model.default_params(max_tokens=tokens, temperature=0, repetition_penalty=1)
        answer: list[int] = []
        mark(0)
        for chunk in model.stream(prompt, params):
            answer.extend(chunk.token_ids)
            mark(len(answer))
    print(json.dumps({"features": cpu.features, "target": suitable(cpu).name, "prompt": len(prompt), "tokens": answer}))


if __name__ == "__main__":
    main()
