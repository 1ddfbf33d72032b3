"""The second half of the worked example: serves a model, asks it with and without its adapter, scores the answers.

serve_adapter.py BASE ADAPTER
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple

from adapter_example import held_out_items, score
from patience import PATIENCE

AT_ONCE = 8  # questions, for the base and for the adapter in turn
SHOWN = 3
INSTRUCTIONS = """Turn the report into a ticket of three lines and write nothing else:
place: <the place>
fault: <no water, leak, dirty water, broken handle or low pressure>
urgency: <high for no water and dirty water, medium for leak and broken handle, low for low pressure>"""


@contextmanager
def serving(model: str) -> Iterator[str]:
    """The address of a server process."""
    command = [sys.executable, "-m", "edgeai", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline() if process.stderr else ""
            if not line:
                raise SystemExit(f"the server did not start: {said}")
            said += line
        yield re.search(r"http://[\d.]+:\d+", said)[0]  # type: ignore[index]
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def ask(url: str, model: str, system: str, text: str) -> str:
    """One answer, greedy."""
    opening = [{"role": "system", "content": system}] if system else []
    body = {"model": model, "messages": [*opening, {"role": "user", "content": text}]}
    body |= {"temperature": 0, "repetition_penalty": 1.0, "max_tokens": 48}
    request = urllib.request.Request(  # noqa: S310 - http on loopback
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310 - http on loopback
        answer: str = json.load(response)["choices"][0]["message"]["content"]
    return answer


def main(base: str, adapter: str) -> None:
    items = held_out_items()
    asked = {base: (base, ""), f"{base}, told the format": (base, INSTRUCTIONS), adapter: (f"{base}:{adapter}", "")}
    jobs = [(*how, item.report) for item in items for how in asked.values()]
    started = time.perf_counter()
    with serving(base) as url, ThreadPoolExecutor(AT_ONCE) as pool:
        given = list(pool.map(lambda job: ask(url, *job), jobs))
    seconds = time.perf_counter() - started
    answers = {label: given[start :: len(asked)] for start, label in enumerate(asked)}
    print(f"\n{len(jobs)} answers, {AT_ONCE} at a time, base and adapter mixed: {seconds:.0f} s\n")
    for number in range(0, len(items), len(items) // SHOWN):
        print(f"> {items[number].report}")
        for label in asked:
            print(f"[{label}]\n{answers[label][number].strip()}")
        print()
    print("| held-out reports | right form | place | fault | urgency | all right |\n|---|---|---|---|---|---|")
    for label in asked:
        shares = astuple(score(items, answers[label]))
        print(f"| {label} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
