"""The real worker, but for the settings it is told to misbehave with: it dies, hangs or answers wrongly, for real."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "EDGEAI_TEST_MISBEHAVIOUR"  # read here and nowhere in the product


def act_of(settings: Mapping[str, Any]) -> str:
    """What to do with these settings, by the last rule that fits."""
    told = json.loads(os.environ[VARIABLE])
    with Path(told["log"]).open("a") as log:
        log.write(json.dumps(settings) + "\n")
    fitting = [act for wanted, act in told["rules"] if all(settings[name] == value for name, value in wanted.items())]
    return fitting[-1] if fitting else "behave"


def main() -> None:
    from edgeai.tuning import worker

    real_load, real_do, acts = worker.load, worker.do, []

    def load(path: Path, settings: Mapping[str, Any]) -> Any:
        acts.append(act_of(settings))
        match acts[0]:
            case "SIGILL" | "SIGSEGV" | "SIGKILL" as name:
                os.kill(os.getpid(), getattr(signal, name))
            case "hang":
                time.sleep(600)
            case "raise":
                raise RuntimeError("no such kernel")
        return real_load(path, settings)

    def do(model: Any, task: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = dict(real_do(model, task))
        match acts[0]:
            case "SIGILL when answering":
                os.kill(os.getpid(), signal.SIGILL)
            case "hang when answering":
                time.sleep(600)
            case "wrong" if task["task"] == "ask":
                answer |= {"gap": 23.0, "tokens": [1, 2, 3]}
            case "slow":
                answer = {name: value / 4 if "per_second" in name else value for name, value in answer.items()}
            case "garbage":
                print("this is no answer", file=sys.__stdout__)
                return json.loads("17")
        return answer

    worker.load, worker.do = load, do
    worker.main(sys.argv[1])


if __name__ == "__main__":
    main()
