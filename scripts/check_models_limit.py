"""Serve three models under a hard memory limit that does not hold them, and ask them in turn.

check_models_limit.py PACKAGE [--limits 512 384] [--rounds N] [--json FILE]

The three are copies of one package under other names. Each answer needs its model in memory, so that others have to go.
The exit status is 1 if anything was killed or an answer was missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

from memory_limit import memory_limit
from server_client import call
from servers import Server

MIB = 1 << 20
NAMES = ("one", "two", "three")
QUESTION = "Tell me about wells and about water. " * 40


@dataclass
class Outcome:
    """What came of a limit: `loads` and `evictions` as the server logged them, `longest` in seconds."""

    limit: int
    way: str
    answers: int = 0
    missing: int = 0
    loads: int = 0
    evictions: int = 0
    kills: int = 0
    peak: int | None = None
    longest: float = 0.0


def within(limit: int, home: Path, rounds: int) -> Outcome:
    os.environ["EDGEAI_HOME"] = str(home)
    options = ["--kv-disk", "0", "--threads", "2", "--check", "never"]
    with memory_limit(limit) as box:
        result = Outcome(limit, box.way)
        server = Server(
            [sys.executable, "-P", "-m", "edgeai", "serve", *options], home / f"{limit}.log", start=box.start
        )
        server.ready()
        for name in NAMES * rounds:
            started = time.monotonic()
            answered = ask(server.base_url, name)
            result.answers, result.missing = result.answers + answered, result.missing + (not answered)
            result.longest = max(result.longest, time.monotonic() - started)
        said = server.said()
        result.loads, result.evictions = said.count(" INFO loading "), said.count(" needs its memory")
        result.kills, result.peak = box.kills, box.peak
        server.kill()
    return result


def ask(url: str, model: str) -> bool:
    """Whether the model answered."""
    messages = [{"role": "user", "content": QUESTION}]
    try:
        answer = call(url, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 8})
    except (OSError, HTTPException) as error:
        print(f"{model}: {error}", file=sys.stderr)
        return False
    return answer.status == 200 and answer.document["usage"]["completion_tokens"] > 0


def show(outcome: Outcome) -> None:
    peak = "?" if outcome.peak is None else f"{outcome.peak // MIB} MiB"
    print(
        f"{outcome.limit // MIB} MiB ({outcome.way}): {outcome.answers} answers, {outcome.missing} missing,"
        f" {outcome.loads} loads, {outcome.evictions} evictions, {outcome.kills} kills, {peak} charged at most,"
        f" the longest answer {outcome.longest:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--limits", type=int, nargs="+", default=[512, 384], help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that boxes are emptied and removed
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            shutil.copytree(args.package, Path(folder) / "models" / name)
        for limit in args.limits:
            outcomes.append(within(limit * MIB, Path(folder), args.rounds))
            show(outcomes[-1])
    if args.json:
        args.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    sys.exit(1 if any(each.kills or each.missing for each in outcomes) else 0)


if __name__ == "__main__":
    main()
