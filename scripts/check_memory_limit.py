"""Serve a package under hard memory limits, and compare the answers with those without a limit.

check_memory_limit.py PACKAGE [--limits 512 384 ...] [--clients N] [--words N] [--rounds N] [--neighbour] [--json FILE]

Prompts are long enough for the clients' conversations to need more KV cache than the limit allows. A limit ends in one
of three ways: "served", "refused" (the server said before or after loading that the memory is too small) or "killed".
The exit status is 1 if anything was killed, or an answer differed by more than a near tie.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

from greedy_answers import Answer, equal, same, tie
from limited_clients import Clients, prompts
from memory_limit import LimitedBox, memory_limit
from server_client import call
from servers import Ended, Server, edgeai_command

MIB = 1 << 20
# Takes memory in steps, holds it, and gives it back: STEP bytes every PAUSE seconds, up to MOST, for HOLD seconds.
NEIGHBOUR = """
import sys, time
step, pause, most, hold = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
kept = []
for _ in range(most // step):
    kept.append(bytearray(step)); time.sleep(pause)
time.sleep(hold)
"""


@dataclass
class Outcome:
    """How one limit ended. Bytes; `peak` is all that the kernel charged, `resident` what the server had of its own."""

    limit: int
    way: str
    outcome: str
    says: str
    peak: int | None = None
    resident: int = 0
    answers: int = 0
    equal: int = 0
    near_ties: int = 0
    widest_tie: float = 0.0  # nats
    refusals: int = 0
    neighbours: int = 0  # that got all they wanted
    highest_level: int = 0
    seconds: float = 0.0


class Watch:
    """Looks at a server twice a second while it works."""

    def __init__(self, server: Server) -> None:
        self.resident = self.highest = self.last = 0
        self._server, self._done = server, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.5):
            try:
                self.resident = max(self.resident, anonymous_bytes(self._server.pid))
                self.last = call(self._server.base_url, "/health").document["memory"]["level"]
            except (OSError, HTTPException):
                continue  # gone, or too busy to say; the clients will tell
            self.highest = max(self.highest, self.last)


def anonymous_bytes(pid: int) -> int:
    """What a process has for itself, file pages left out; nothing once it has died. Raises OSError when it is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def without_limit(package: Path, texts: Sequence[str], args: argparse.Namespace) -> list[Answer]:
    box = LimitedBox(0, "none")
    try:
        return Clients(_server(box, package, args).ready().base_url).ask_all(texts)
    finally:
        box.stop()


def within(
    package: Path, limit: int, texts: Sequence[str], expected: Sequence[Answer], args: argparse.Namespace
) -> Outcome:
    with memory_limit(limit) as box:
        started = time.monotonic()
        result = Outcome(limit, box.way, "refused", "")
        server = _server(box, package, args)
        try:
            server.ready()
        except Ended:
            result.outcome = "killed" if server.process.poll() in (-9, 137) or box.kills else "refused"
            result.says = " ".join(line.strip() for line in server.said().splitlines() if "loading" not in line)
            return result
        result.says = "\n  ".join(line for line in server.said().splitlines() if " free: " in line)
        with Watch(server) as watch:
            _ask_rounds(server, box, result, texts, expected, args)
            if args.neighbour and result.outcome == "served":
                _wait_for_calm(watch)
        if server.process.poll() is not None or box.kills:  # a neighbour that is killed is no better
            result.outcome = "killed"
        result.peak, result.resident, result.highest_level = box.peak, watch.resident, watch.highest
        result.seconds = time.monotonic() - started
        return result


def _server(box: LimitedBox, package: Path, args: argparse.Namespace) -> Server:
    command = edgeai_command(package, "--kv-disk", "0", "--threads", args.threads)
    return Server(command, args.work / f"{box.limit}.log", start=box.start)


def _ask_rounds(
    server: Server,
    box: LimitedBox,
    result: Outcome,
    texts: Sequence[str],
    expected: Sequence[Answer],
    args: argparse.Namespace,
) -> None:
    result.outcome, clients = "served", Clients(server.base_url)
    try:
        for _ in range(args.rounds):
            with _neighbour(box, result, args):
                answers = clients.ask_all(texts)
            for answer, wanted in zip(answers, expected, strict=True):
                result.answers += 1
                result.equal += equal(answer, wanted)
                result.near_ties += same(answer, wanted) and not equal(answer, wanted)
                result.widest_tie = max(result.widest_tie, tie(answer, wanted) or 0.0)
        with _neighbour(box, result, args):  # one more, for a server at rest
            pass
    except (OSError, HTTPException) as error:
        result.outcome, result.says = "killed", f"{type(error).__name__}: {error}"
    result.refusals = clients.refusals


@contextlib.contextmanager
def _neighbour(box: LimitedBox, result: Outcome, args: argparse.Namespace) -> Iterator[None]:
    """One in the box from the beginning of the block on, gone at its end: two at once would take twice as much."""
    if not args.neighbour:
        yield
        return
    step, pause, most, hold = args.neighbour
    process = box.start([sys.executable, "-c", NEIGHBOUR, str(int(step * MIB)), pause, str(int(most) * MIB), hold])
    try:
        yield
    finally:
        result.neighbours += process.wait() == 0


def _wait_for_calm(watch: Watch, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while watch.last and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"level after the neighbour: {watch.last}")


def show(outcome: Outcome) -> None:
    print(f"{outcome.limit // MIB} MiB ({outcome.way}): {outcome.outcome}")
    if outcome.says:
        print(f"  {outcome.says}")
    if outcome.answers:
        print(
            f"  {outcome.answers} answers, {outcome.equal} equal to the token, {outcome.near_ties} up to a near tie"
            f" ({outcome.widest_tie:.2f} nats at most);"
            f" {outcome.refusals} refused to come again; highest level {outcome.highest_level}"
        )
        peak = "not counted" if outcome.peak is None else f"{outcome.peak / MIB:.0f} MiB"
        if outcome.neighbours:
            print(f"  {outcome.neighbours} neighbours got all that they wanted")
        print(f"  peak {peak}, of its own {outcome.resident / MIB:.0f} MiB, {outcome.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--limits", type=int, nargs="+", default=[512, 384, 320, 288, 256], help="MiB")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--words", type=int, default=400, help="of each prompt")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", default="2")
    parser.add_argument(
        "--neighbour", nargs=4, metavar=("STEP", "PAUSE", "MOST", "HOLD"),
        help="in the same group, in each round and once at rest: MiB at a time, seconds between, MiB in all, seconds to"
        " hold them",
    )  # fmt: skip
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that boxes are emptied and removed
    if args.neighbour:
        args.neighbour[0] = float(args.neighbour[0])
    texts = prompts(args.clients, args.words)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        args.work = Path(folder)
        expected = without_limit(args.package, texts, args)
        for limit in args.limits:
            outcomes.append(within(args.package, limit * MIB, texts, expected, args))
            show(outcomes[-1])
    if args.json:
        args.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    bad = [each for each in outcomes if each.outcome == "killed" or each.equal + each.near_ties < each.answers]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
