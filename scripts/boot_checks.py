"""What is proved of an image by booting it. Each check finds the machine off, and leaves it off or to the next one."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Any

from boot_guest import ACCESS_POINT, ATTEMPTS, BREAK_B, COPY_TO_B, EXPORT, JOIN, KEEP, STATUS, TRY_B
from boot_machine import MAC, Machine, make_stick, write_to_boot
from boot_silence import sent
from openai import OpenAI, OpenAIError

QUESTION = "Why is the sky blue?"
IDLE_SECONDS = 60
ANSWERS = 10


@dataclass
class Lab:
    """The machine, what was found, and what did not hold."""

    machine: Machine
    cuts: int
    seed: int
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, names: list[str]) -> None:
        """All checks of these names; one that fails does not keep the next from being tried."""
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                CHECKS[name](self)
            except (OSError, RuntimeError, ValueError, SubprocessError, OpenAIError) as error:
                self.failures.append(f"{name}: {error}")
                print(f"{name} FAILED: {error}", file=sys.stderr, flush=True)
            self.machine.cut()

    def note(self, name: str, value: Any) -> None:
        """A figure, also told at once: a long run may be cut."""
        self.figures[name] = value
        print(f"  {name}: {value}", file=sys.stderr, flush=True)

    def table(self) -> str:
        """Figures as Markdown, and failures below."""
        lines = ["| what | seen |", "|---|---|", *(f"| {name} | {value} |" for name, value in self.figures.items())]
        return "\n".join([*lines, *(f"FAILED: {failure}" for failure in self.failures)])

    def start_with_key(self, **further: str) -> None:
        """Switch the machine on with the key of this run on its boot partition, and wait until it is ready.

        `further` files are written there as well; names have _ for -.
        """
        public = self.machine.key.with_suffix(".pub").read_text().strip()
        user_data = f"#cloud-config\nhostname: boot-image\nusers:\n- name: tester\n  ssh_authorized_keys: [{public}]\n"
        files = {"user-data": user_data, **{name.replace("_", "-"): text for name, text in further.items()}}
        write_to_boot(self.machine.disk, files, ["mcopy"])
        self.machine.start()
        self.machine.ready_after()
        self.machine.await_ssh()


def require(holds: bool, message: str) -> None:
    """Raise RuntimeError with what did not hold."""
    if not holds:
        raise RuntimeError(message)


def client_of(machine: Machine) -> OpenAI:
    """OpenAI's own client, with the board's first key."""
    key = machine.run("cat /data/edgeai/first-key.txt").strip()
    address = f"http://127.0.0.1:{machine.ports['http']}/v1"
    return OpenAI(base_url=address, api_key=key, timeout=150 * machine.patience, max_retries=0)


def ask(machine: Machine) -> str:
    """An answer to a question."""
    client = client_of(machine)
    model = client.models.list().data[0].id
    messages: Any = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=24)
    text = answer.choices[0].message.content or ""
    require(bool(text.strip()), "the model answered nothing")
    return text.strip()


def ask_briefly(machine: Machine) -> None:
    """Two tokens: emulated processors take seconds for each."""
    client = client_of(machine)
    model = client.models.list().data[0].id
    completion = client.completions.create(model=model, prompt="The sky is", temperature=0, max_tokens=2)
    require(bool(completion.choices[0].text.strip()), "the model wrote nothing")


def first_start(lab: Lab) -> None:
    """A card as it was written: it gets ready, lets nobody in without a key, and not by SSH."""
    lab.machine.start()
    lab.note("first start, seconds to ready", round(lab.machine.ready_after(), 1))
    require(lab.machine.status("/v1/models") == 401, "the API answers without a key")
    require(not lab.machine.lets_in("ssh"), "SSH answers although no key was given")


def answer(lab: Lab) -> None:
    """The system as it should be, seen from inside, and an answer."""
    machine = lab.machine
    lab.start_with_key()
    lab.note("later start, seconds to ready", round(time.monotonic() - machine.started, 1))
    lab.note("answer", ask(machine).replace("\n", " ")[:100])
    memory = dict(line.split(":") for line in machine.run("cat /proc/meminfo").splitlines())
    for name in ("MemTotal", "MemAvailable"):
        lab.note(f"{name} after an answer, MiB", int(memory[name].split()[0]) // 1024)
    failed = machine.run("systemctl --failed --plain --no-legend --no-pager")
    require(not failed.strip(), f"units have failed: {failed}")
    mounts = machine.run("cat /proc/mounts /proc/swaps")
    require(" / erofs ro" in mounts, f"the root is not read-only: {mounts}")
    require("/dev/zram0" in mounts, f"there is no swap in memory: {mounts}")
    size = int(machine.run("df -B1 --output=size /data | tail -n1"))
    lab.note("data partition, of the card's bytes", f"{size} of {machine.disk.stat().st_size}")
    require(size > 0.6 * machine.disk.stat().st_size, "the data partition did not grow")
    before = written(machine)
    lab.note("bytes written since the start", before)
    for _ in range(ANSWERS):
        ask_briefly(machine)
    machine.run("sync")
    lab.note(f"bytes written by {ANSWERS} further short answers", written(machine) - before)
    lab.note("host name", machine.run("uname -n").strip())
    lab.note("slots", machine.run(STATUS).strip())


def written(machine: Machine) -> int:
    """Bytes that the machine wrote to its card since it started."""
    return int(machine.run("cat /sys/class/block/vda/stat").split()[6]) * 512


def silence(lab: Lab) -> None:
    """Nothing leaves the machine but answers, its name and its request for an address; nor can it."""
    machine = lab.machine
    if machine.process is None:
        lab.start_with_key()
    came_through = machine.run(f"python3 - <<'END'\n{ATTEMPTS}\nEND")
    require(not came_through.strip(), f"the firewall let through: {came_through}")
    before = written(machine)
    time.sleep(IDLE_SECONDS)
    lab.note(f"bytes written in {IDLE_SECONDS} s of doing nothing", written(machine) - before)
    machine.cut()
    allowed, others = sent(machine.captures, MAC)
    lab.note("frames sent", dict(allowed))
    require(allowed["DHCP"] > 0, "the capture is empty: not even an address was asked for")
    require(not others, f"sent without being asked: {dict(others)}")


def access_point(lab: Lab) -> None:
    """An access point that was asked for, on simulated radios: a client joins, gets an address, reaches the server."""
    machine = lab.machine
    lab.start_with_key(network_config=ACCESS_POINT)
    seen = machine.run(JOIN, within=300)
    require("offered 10.42.0." in seen, f"no address was offered: {seen}")
    require('{"status":"ok"}' in seen, f"the server was not reached over Wi-Fi: {seen}")
    lab.note("access point", seen.strip().replace("\n", ", "))
    machine.run("sync")
    write_to_boot(machine.disk, {"network-config": "# nothing\n"}, ["mcopy"])


def usb_stick(lab: Lab) -> None:
    """A model in a signed bundle on a USB stick is installed at a start of a board that has none."""
    machine = lab.machine
    lab.start_with_key()
    machine.run(EXPORT, within=300)
    bundle = machine.work / "model.bundle"
    machine.fetch("/data/model.bundle", bundle)
    machine.run("rm -r /data/model.bundle /data/edgeai/models/*; sync")
    machine.cut()
    stick = machine.work / "stick.img"
    make_stick(stick, [bundle])
    machine.start(stick)
    lab.note("USB stick, seconds from switching on to ready with its model", round(machine.ready_after(within=400), 1))
    machine.await_ssh()
    ask_briefly(machine)
    machine.run("sync")


def rollback(lab: Lab) -> None:
    """A system in slot b with a damaged root is tried three times, then a is back; a sound one becomes the good one."""
    machine = lab.machine
    lab.start_with_key()
    machine.run(COPY_TO_B, within=300)
    machine.run(BREAK_B)
    machine.run(TRY_B)
    started = time.monotonic()
    machine.restart(within=600)
    status = json.loads(machine.run(STATUS))
    require((status["running"], status["good"], status["tries_left"]) == ("a", "a", 0), f"after a broken b: {status}")
    lab.note("seconds from a broken b back to a", round(time.monotonic() - started))
    machine.run(COPY_TO_B, within=300)
    machine.run(TRY_B)
    machine.restart(within=300)
    deadline = time.monotonic() + 300 * machine.patience
    while (status := json.loads(machine.run(STATUS)))["good"] != "b" and time.monotonic() < deadline:
        time.sleep(2)
    require((status["running"], status["good"], status["trying"]) == ("b", "b", None), f"after a good b: {status}")
    lab.note("a healthy b was committed", json.dumps(status))
    machine.run("sync")


def power_cuts(lab: Lab) -> None:
    """The power is cut at random moments of starting and serving; each next start gets ready and answers."""
    rng = random.Random(lab.seed)  # noqa: S311
    lab.note("seed", lab.seed)
    lab.start_with_key()
    usual = time.monotonic() - lab.machine.started
    for number in range(1, lab.cuts + 1):
        serving = number % 2 == 0
        if serving:  # write while it is ready: an answer, keys, a file that is said to be safe
            lab.machine.run(KEEP.format(number=number))
            time.sleep(rng.uniform(0, 3))
        else:
            lab.machine.cut()
            lab.machine.start()
            time.sleep(rng.uniform(0, usual * 1.2))
        lab.machine.cut()
        lab.machine.start()
        lab.machine.ready_after()
        lab.machine.await_ssh()
        kept = int(lab.machine.run("cat /data/keep 2>/dev/null || echo 0"))
        require(kept == number - number % 2, f"cut {number}: what was said to be safe is lost: {kept}")
        ask_briefly(lab.machine)
        failed = lab.machine.run("systemctl --failed --plain --no-legend --no-pager")
        require(not failed.strip(), f"cut {number}: units have failed: {failed}")
        lab.figures["cuts survived"] = number
        print(f"  cut {number} survived", file=sys.stderr, flush=True)


CHECKS: dict[str, Callable[[Lab], None]] = {
    "first-start": first_start,
    "answer": answer,
    "silence": silence,
    "access-point": access_point,
    "usb-stick": usb_stick,
    "rollback": rollback,
    "power-cuts": power_cuts,
}
