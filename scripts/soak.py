"""Soaks `edgeai serve`: many clients, good and bad, for minutes, with a full disk, a kill and clock jumps among them.

soak.py PACKAGE [--seconds N] [--clients N] [--batch LINES] [--peer GGUF] [--json FILE]

It must answer everything that it can, refuse the rest in the way it promises, keep what it said it keeps, and in the
end hold no more than it did. Times below are shares of `--seconds`. What grows is judged in the last third; nothing is
done to the server then. Exit code 1 when anything was not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import openai
from faults_questions import Golden, NoRoom, goldens
from load_scenarios import warm_up
from patience import PATIENCE
from server_client import call, chat
from servers import Server, edgeai_server, llama_server
from soak_asks import COMMON, MIX
from soak_clients import Answer, Clients, Target
from soak_promises import Promises
from soak_report import Findings, latencies, outcomes, refusals, report, wrong
from soak_subject import CONTEXT, ROWS, Subject, subject
from soak_watch import Sample, Watch, growth

FULL, FULL_UNTIL = 0.08, 0.16  # the disk
KILL = 0.3
JUMPS = {0.40: 400, 0.43: -20_000, 0.46: 0}  # of the clock, to so many days from the right time
JUDGED = 2 / 3  # by then the buffers of runs have their size, on a slow machine too
SPARE_DESCRIPTORS = 8  # more than a fresh server, that one at rest may hold
REST_SECONDS = 6.0  # after which connections that nobody uses are closed
TRACEBACK = "Traceback (most recent call last)"
ANSWERS_BEFORE = 3  # of the batch, before anybody else asks


class Soak:
    """One run on one server."""

    def __init__(self, subject: Subject, args: argparse.Namespace) -> None:
        self.findings = Findings()
        self._subject, self._args = subject, args
        self._promises = Promises(subject)
        self._goldens: list[Golden] = []
        self._started = 0.0

    async def run(self) -> Findings:
        """All of it. What cannot go on is a problem too."""
        watch = Watch(self._subject.target, self._subject.admin, lambda: self._subject.server.pid)
        clients = Clients(
            self._subject.target,
            MIX,
            count=self._args.clients,
            seed=self._args.seed,
            uploaded=self._promises.uploaded,
        )
        try:
            await asyncio.to_thread(self._learn)
            fresh = await self._rest(watch)
            await asyncio.to_thread(self._begin)
            async with watch, clients:
                await self._faults()
                judged = max(self._moment(JUDGED), time.perf_counter())  # a slow machine may be late
                await asyncio.sleep(judged + (1 - JUDGED) * self._args.seconds - time.perf_counter())
                window = [sample for sample in watch.samples if sample.moment >= judged]
            self._progress(f"traffic is over: {len(clients.answers)} requests")
            await asyncio.to_thread(self._promises.finish_batch)
            self._compare(fresh, await self._rest(watch), window)
            await asyncio.to_thread(self._finish)
        except (RuntimeError, OSError, httpx.HTTPError, openai.OpenAIError) as error:
            self.findings.problems.append(f"{type(error).__name__}: {error}")
        self._conclude(watch, clients.answers)
        return self.findings

    def _learn(self) -> None:
        """Right answers, while nobody else asks."""
        self._goldens = goldens(self._subject.target.base_url, 2, key=self._subject.admin)

    def _begin(self) -> None:
        """A batch that has begun, before it has to stand behind others."""
        self._promises.start_batch(self._args.batch)
        self._promises.wait_for_answers(min(ANSWERS_BEFORE, self._args.batch))
        self._started = time.perf_counter()
        self._progress("traffic begins")

    def _progress(self, what: str) -> None:
        print(f"{time.perf_counter() - self._started:6.0f} s: {what}", file=sys.stderr, flush=True)

    async def _faults(self) -> None:
        """Everything bad that is done to the server, each at its time."""
        if "full disk" not in self._subject.missing:
            await self._until(FULL)
            self._progress("the disk is full")
            with self._subject.full_disk():
                said = await asyncio.to_thread(self._promises.try_full_disk)
                await self._until(FULL_UNTIL)
            self.findings.seen.append(f"full disk: {said}")
        await self._until(KILL)
        await asyncio.to_thread(self._kill)
        if clock := self._subject.clock:
            for share, days in JUMPS.items():
                await self._until(share)
                clock.jump_to(days=days)
                await asyncio.to_thread(self._check, f"the clock is {days:+d} days off")

    def _kill(self) -> None:
        """A restart without any warning; what was promised is looked for before anything else happens."""
        self._promises.change_keys()
        self._check("before the kill")
        told = self._promises.answered()
        self._subject.kill()
        self._promises.note_answers(told)
        self._subject.start()
        killed, ready = self._subject.target.down[-1]
        restored = self._check("after the kill")
        self.findings.seen.append(
            f"kill -9: answered again after {ready - killed:.1f} s; {self._promises.kept_lines} answers of the batch"
            f" were on disk ({told} told of); {restored} tokens of golden questions restored"
        )

    def _check(self, when: str) -> int:
        """Golden answers, files and keys; returns how many tokens came from a cache."""
        self._progress(f"looks at what was promised: {when}")
        cached = 0
        for golden in self._goldens:
            try:
                cached += self._patiently(golden)
            except RuntimeError as error:
                self.findings.problems.append(f"golden answer, {when}: {error}")
        self._promises.check()
        return cached

    def _patiently(self, golden: Golden) -> int:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return golden.check(self._subject.target.base_url, key=self._subject.admin).cached
            except NoRoom:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    async def _rest(self, watch: Watch) -> Sample:
        """A sample once nothing runs or waits, and no connection is closed any more. Raises RuntimeError."""
        deadline, before = time.monotonic() + PATIENCE, math.inf
        async with watch.client() as client:
            while time.monotonic() < deadline:
                sample = await watch.now(client)
                if not sample.running + sample.waiting and sample.descriptors >= before:
                    return sample
                before = sample.descriptors
                await asyncio.sleep(REST_SECONDS)
        raise RuntimeError(f"it does not come to rest: {sample}")

    def _compare(self, fresh: Sample, rest: Sample, window: list[Sample]) -> None:
        """What the server holds at rest, beside a fresh one and beside itself under load."""
        self.findings.growth = growth(window)
        used = median(sample.own_mib for sample in window or [rest])  # none where a machine is very busy
        self.findings.seen.append(
            f"at rest: {rest.running} running, {rest.waiting} waiting; {rest.descriptors} descriptors"
            f" (fresh {fresh.descriptors}), {rest.threads} threads (fresh {fresh.threads}), {rest.own_mib:.0f} MiB"
            f" (fresh {fresh.own_mib:.0f}, under load {used:.0f}) and {rest.kv_mib:.0f} MiB of KV cache"
        )
        if rest.descriptors > fresh.descriptors + SPARE_DESCRIPTORS:
            self.findings.problems.append(f"descriptors are left open: {rest.descriptors} of {fresh.descriptors}")
        most = max(sample.own_mib for sample in window or [rest])
        if any(each.judged for each in self.findings.growth) and rest.own_mib > 1.05 * most:
            self.findings.problems.append(f"memory does not come back: {rest.own_mib:.0f} MiB")

    def _finish(self) -> None:
        """Promises once more, and a server that is told to stop while it answers."""
        self._check("at the end")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                chat, self._subject.target.base_url, "Tell a story.", max_tokens=64, key=self._subject.admin
            )
            self._wait_until_running()
            self._subject.server.stop()
            tokens = asked.result().tokens
        code = self._subject.server.process.returncode
        self.findings.seen.append(f"told to stop while it wrote: all {tokens} tokens came, exit code {code}")
        if code not in (0, -signal.SIGTERM):  # the signal is raised again once all is done
            self.findings.problems.append(f"told to stop, it ended with {code}")

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not call(self._subject.target.base_url, "/health").document["running"] and time.monotonic() < deadline:
            time.sleep(0.02)

    def _conclude(self, watch: Watch, answers: list[Answer]) -> None:
        found = self.findings
        found.seconds, found.samples = self._args.seconds, watch.samples
        found.outcomes, found.latencies = outcomes(answers), latencies(answers)
        found.refused = refusals(answers, self._subject.said())
        found.seen += [f"{fault} was not tried: {why}" for fault, why in self._subject.missing.items()]
        if looks := [sample.answered_in for sample in watch.samples]:
            found.seen.append(f"/health answered {len(looks)} times, after {max(looks):.2f} s at most")
        found.seen.append(
            f"{len(self._promises.files)} files and {self._promises.batch_lines} lines of a batch were promised"
        )
        found.problems += wrong(answers) + self._promises.lost
        found.problems += [f"not healthy: {failure}" for failure in watch.failures]
        found.problems += [f"{each.name} grew by {each.grown:.1f}" for each in found.growth if not each.good]
        if crashes := tracebacks(self._subject.said()):
            found.problems.append(f"{len(crashes)} tracebacks in the log: {TRACEBACK.join(crashes[:3])}")

    def _moment(self, share: float) -> float:
        return self._started + share * float(self._args.seconds)

    async def _until(self, share: float) -> None:
        await asyncio.sleep(max(0.0, self._moment(share) - time.perf_counter()))


def tracebacks(log: str) -> list[str]:
    """The beginning of each in a server's log."""
    return [text[:3000] for text in log.split(TRACEBACK)[1:]]


async def calm(server: Server, args: argparse.Namespace) -> list[Answer]:
    """The traffic that both servers understand, without any fault."""
    async with Clients(Target(server.base_url), COMMON, count=args.clients, seed=args.seed) as clients:
        await asyncio.sleep(args.peer_seconds)
    return clients.answers


def beside(args: argparse.Namespace, findings: Findings) -> None:
    """Both servers under the same traffic, with as many rows and as much cache, and queues that refuse nobody."""
    queue = str(2 * args.clients + ROWS)
    options = ["--rows", str(ROWS), "--max-queue", queue, "--max-queue-per-client", queue]
    starts: dict[str, Callable[[], Any]] = {
        "edgeai": lambda: edgeai_server(args.package, context=CONTEXT, kv_budget=1 << 30, options=options),
        "llama-server": lambda: llama_server(args.peer, context=ROWS * CONTEXT, parallel=ROWS, unified=False),
    }
    for name, start in starts.items():
        with start() as server:
            warm_up(server.base_url)
            answers = asyncio.run(calm(server, args))
        findings.peer[name] = latencies(answers)
        failed = wrong(answers)
        findings.seen.append(f"{name} under calm traffic: {len(answers)} requests, {len(failed)} kinds of failures")
        if name == "edgeai":
            findings.problems += [f"calm traffic: {each}" for each in failed]
        else:
            findings.seen += failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0, help="of traffic; 0 for --peer alone")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch", type=int, default=100, help="lines of the batch behind them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", type=Path, metavar="GGUF", help="also beside llama-server on this file")
    parser.add_argument("--peer-seconds", type=float, default=100.0, help="of traffic for each of the two")
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    args = parser.parse_args()
    args.package = args.package.resolve()
    findings = Findings()
    if args.seconds:
        with tempfile.TemporaryDirectory(prefix="edgeai-soak-") as work, subject(args.package, Path(work)) as served:
            findings = asyncio.run(Soak(served, args).run())
    if args.peer:
        beside(args, findings)
    print(report(findings))
    if args.json:
        args.json.write_text(json.dumps(findings.document(), indent=2) + "\n")
    sys.exit(bool(findings.problems))


if __name__ == "__main__":
    main()
