"""The second half of the worked example: serves a model, asks it with and without its adapter, scores the answers.

serve_adapter.py BASE ADAPTER
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

from adapter_example import held_out_items, score
from server_client import call
from servers import edgeai_command, running

AT_ONCE = 8  # questions, for the base and for the adapter in turn
SHOWN = 3
INSTRUCTIONS = """Turn the report into a ticket of three lines and write nothing else:
place: <the place>
fault: <no water, leak, dirty water, broken handle or low pressure>
urgency: <high for no water and dirty water, medium for leak and broken handle, low for low pressure>"""


def ask(url: str, model: str, system: str, text: str) -> str:
    """One answer, greedy."""
    opening = [{"role": "system", "content": system}] if system else []
    body = {"model": model, "messages": [*opening, {"role": "user", "content": text}]}
    body |= {"temperature": 0, "repetition_penalty": 1.0, "max_tokens": 48}
    response = call(url, "/v1/chat/completions", body, timeout=600)
    if response.status != 200:
        raise SystemExit(f"the server answered {response.status}: {response.document}")
    answer: str = response.document["choices"][0]["message"]["content"]
    return answer


def main(base: str, adapter: str) -> None:
    items = held_out_items()
    asked = {base: (base, ""), f"{base}, told the format": (base, INSTRUCTIONS), adapter: (f"{base}:{adapter}", "")}
    jobs = [(*how, item.report) for item in items for how in asked.values()]
    started = time.perf_counter()
    with running(edgeai_command(base)) as server, ThreadPoolExecutor(AT_ONCE) as pool:
        given = list(pool.map(lambda job: ask(server.base_url, *job), jobs))
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
