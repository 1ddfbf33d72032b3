"""The faults themselves. Each function tries what is missing of a number of them, and returns why it cannot, if so."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import false_clock
from false_clock import FalseClock
from faults_damage import DAMAGES
from faults_lab import GOLDENS, KV_BUDGET, Lab, kv_files, remount, small_disk, temporaries, traffic
from faults_questions import stream
from patience import PATIENCE
from servers import Server

REFUSED = "was damaged and is removed"
JUMPS = (1, 40, -1, 3650, -365, -20000, 400, -30, 20000)  # days: boards without a battery wake up in 1970


def kills(lab: Lab, count: int) -> str | None:
    """Kill the server while it starts, reads prompts, answers and writes blocks; what it left must be whole."""
    fault, home = "kill -9", "killed"
    server = lab.server(home).ready()
    while lab.record.tried[fault] < count and not lab.time_is_up:
        number = lab.record.tried[fault]
        chance = random.Random(number)
        with lab.record.trial(fault), server:
            with traffic(server, number):
                wait_for_the_moment(lab.work / home, chance)
                server.kill()
            cut = temporaries(lab.work / home)
            lab.record.seen[f"{fault}/files cut in the middle"] += len(cut)
            for path in cut:
                os.utime(path, (0, 0))  # a young one might be another server's
            if chance.random() < 0.25:
                starting = lab.server(home)
                time.sleep(chance.random() * 1.5)
                starting.kill()
            server = lab.server(home).ready()
            if temporaries(lab.work / home):
                raise RuntimeError("what was cut in the middle is not removed")
            lab.record.seen[f"{fault}/tokens restored"] += lab.check(server, number % 2)
            lab.check_budget(home)
        if server.process.poll() is not None:
            server = lab.server(home).ready()
    server.kill()
    return None


def wait_for_the_moment(home: Path, chance: random.Random) -> None:
    """Any moment of the first seconds, or, as often, one within the milliseconds in which a block is written."""
    if chance.random() < 0.5:
        time.sleep(chance.random() * 2.5)
        return
    before = newest(home)
    deadline = time.monotonic() + 2.5
    while newest(home) == before and not temporaries(home) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.random() * 0.02)


def damaged_files(lab: Lab, count: int) -> str | None:
    """Damage one block of each golden prompt, in a way drawn for each."""
    fault, home, budget = "damaged file", "damaged", 10 * KV_BUDGET
    chains = chains_of(lab, home, budget)
    while lab.record.count(fault) < count and not lab.time_is_up:
        chance = random.Random(lab.record.count(fault))
        kinds = [chance.choice(list(DAMAGES)) for _ in chains]
        for kind, chain, other in zip(kinds, chains, chains[1:] + chains[:1], strict=True):
            DAMAGES[kind](chance.choice(whole(chain)), chance.choice(whole(other)), chance)
        before = lab.log(home).count(REFUSED)
        with lab.record.trial(*(f"{fault}: {kind}" for kind in kinds)), lab.server(home, kv_disk=budget) as server:
            lab.record.seen[f"{fault}/tokens restored"] += lab.check(server.ready())
            lab.check_budget(home, kv_disk=budget)
            server.stop()
        lab.record.seen[f"{fault}/blocks refused by their digest"] += lab.log(home).count(REFUSED) - before
    lab.record.save()
    return None


def whole(chain: list[Path]) -> list[Path]:
    """The blocks that are there to be damaged."""
    return [path for path in chain if path.exists()]


def chains_of(lab: Lab, home: str, budget: int) -> list[list[Path]]:
    """The files of each golden prompt's blocks, in order."""
    chains, known = [], set[Path]()
    with lab.server(home, kv_disk=budget) as server:
        server.ready()
        for number in range(GOLDENS):
            lab.check(server, number)
            wait_until(lambda: still(lab.work / home))
            new = set(kv_files(lab.work / home)) - known
            known |= new
            chains.append(sorted(new, key=lambda path: path.stat().st_mtime_ns))
        server.stop()
    return chains


def full_disk(lab: Lab, count: int) -> str | None:
    """A disk that fills up, between blocks and in the middle of one, while clients are served and when it starts."""
    fault, home = "full disk", "full"
    with small_disk(lab.work / home, 24 << 20) as mounted:
        if not mounted:
            return "not tried: mounting a small disk is not permitted"
        filler = lab.work / home / "filler"
        while lab.record.tried[fault] < count and not lab.time_is_up:
            number = lab.record.tried[fault]
            chance = random.Random(number)
            with lab.record.trial(fault), lab.server(home, kv_disk=1 << 30) as server:
                server.ready()
                fill(filler, leaving=chance.randrange(4 << 20))
                with traffic(server, 1000 + number):
                    lab.check(server, number % GOLDENS)
                server.kill()
                again = lab.server(home, kv_disk=1 << 30)
                with again:
                    lab.check(again.ready(), number % GOLDENS)
                    again.stop()
            filler.unlink(missing_ok=True)
            for path in kv_files(lab.work / home)[::2]:
                path.unlink()
        lab.record.seen[f"{fault}/times told that the disk is full"] += lab.log(home).count("no room for")
    lab.record.save()
    return None


def fill(filler: Path, leaving: int) -> None:
    """Write zeros until only about `leaving` bytes are free."""
    free = shutil.disk_usage(filler.parent).free
    with contextlib.suppress(OSError), filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - leaving))


def read_only_disk(lab: Lab, count: int) -> str | None:
    """Blocks on a disk that can only be read from some moment on; at the next start the whole home is such a disk."""
    fault, home = "read-only disk", "readonly"
    whole_home, blocks = lab.work / home, lab.work / home / "kv"
    with small_disk(whole_home, 8 << 20) as mounted, small_disk(blocks, 64 << 20):
        if not mounted:
            return "not tried: mounting a small disk is not permitted"
        while lab.record.tried[fault] < count and not lab.time_is_up:
            number = lab.record.tried[fault]
            with lab.record.trial(fault):
                with lab.server(home) as server, traffic(warmed_up(lab, server.ready(), home, number), 2000 + number):
                    time.sleep(random.Random(number).random())
                    remount(blocks, "ro")
                    lab.check(server, number % GOLDENS)
                remount(whole_home, "ro")
                with lab.server(home) as server:
                    lab.record.seen[f"{fault}/tokens restored"] += lab.check(server.ready(), number % GOLDENS)
                    lab.check_budget(home)
                    server.stop()
            remount(whole_home, "rw")
            remount(blocks, "rw")
        lab.record.seen[f"{fault}/times told that writing failed"] += lab.log(home).count("stored KV blocks failed")
    lab.record.save()
    return None


def warmed_up(lab: Lab, server: Server, home: str, number: int) -> Server:
    """The server, with the blocks of a golden prompt on its disk."""
    lab.check(server, number % GOLDENS)
    wait_until(lambda: still(lab.work / home))
    return server


def clock_jumps(lab: Lab, count: int) -> str | None:
    """A clock that jumps while the server runs; blocks must go on being written, and be there after a restart."""
    fault, home = "clock jump", "clock"
    if false_clock.MISSING:
        return f"not tried: {false_clock.MISSING}"
    clock = FalseClock(lab.work)
    while lab.record.tried[fault] < count and not lab.time_is_up:
        number = lab.record.tried[fault]
        first, then = JUMPS[number % len(JUMPS)], JUMPS[(number + 1) % len(JUMPS)]
        clock.jump_to(days=first)
        with lab.record.trial(fault), lab.server(home, env=clock.environment) as server:
            server.ready()
            clock.jump_to(days=then)
            lab.check(server, number % GOLDENS)
            before = newest(lab.work / home)
            stream(server.base_url, 3000 + number)
            if not wait_until(lambda: newest(lab.work / home) > before):  # noqa: B023 (called at once)
                raise RuntimeError(f"no block is written after the clock jumped to {then:+d} days from the right time")
            lab.record.seen[f"{fault}/tokens restored"] += lab.check(server, number % GOLDENS)
            lab.check_budget(home)
            server.stop()
    return None


def newest(home: Path) -> int:
    """When the newest block was written, in nanoseconds; blocks may leave while this looks."""
    times = [0]
    for path in kv_files(home):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def still(home: Path) -> bool:
    """Whether nothing is being written any more."""
    return bool(kv_files(home)) and not temporaries(home) and time.time_ns() - newest(home) > 3 * 10**8


FAULTS: dict[str, Callable[[Lab, int], str | None]] = {
    "kill -9": kills,
    "damaged file": damaged_files,
    "full disk": full_disk,
    "read-only disk": read_only_disk,
    "clock jump": clock_jumps,
}
