"""What checks of an emulated board have in common: the machine, what was found and what did not hold, and asking it."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from boot_guest import SEND_MODEL, STATUS, TRUST_PUBLISHER
from boot_machine import Machine, write_to_boot
from boot_system import Update, make_model, make_update, signing_key
from openai import OpenAI, OpenAIError

QUESTION = "Why is the sky blue?"


@dataclass
class Lab:
    """The machine, what was found, and what did not hold."""

    machine: Machine
    cuts: int
    seed: int
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, checks: Mapping[str, Callable[[Lab], None]]) -> None:
        """All these checks; one that fails does not keep the next from being tried."""
        for name, check in checks.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                check(self)
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

    @cached_property
    def update(self) -> Update:
        """A newer system for the board, on this machine."""
        return make_update(self.machine.image, self.machine.work)

    @cached_property
    def model(self) -> Path:
        """The bundle of the board's model by another name, on this machine; the board has to be on."""
        work = self.machine.work
        self.machine.fetch(SEND_MODEL, work / "model.tar")
        with tarfile.open(work / "model.tar") as archive:
            archive.extractall(work / "model", filter="data")
        return make_model(work / "model", work)

    def trust_publisher(self) -> None:
        """Let the board trust what this run signs, systems too."""
        signing_key(self.machine.work)
        self.machine.send(self.machine.work / "publisher.pub", "/data/publisher.pub")
        self.machine.run(TRUST_PUBLISHER)

    def give_key(self, **further: str) -> None:
        """Write the SSH key of this run onto the boot partition, and `further` files; their names have _ for -."""
        public = self.machine.key.with_suffix(".pub").read_text().strip()
        user_data = f"#cloud-config\nhostname: boot-image\nusers:\n- name: tester\n  ssh_authorized_keys: [{public}]\n"
        files = {"user-data": user_data, **{name.replace("_", "-"): text for name, text in further.items()}}
        write_to_boot(self.machine.disk, files)

    def start_with_key(self, **further: str) -> None:
        """Switch the machine on with that key, and wait until it is ready and lets its holder in."""
        self.give_key(**further)
        self.start()

    def start(self, stick: Path | None = None, within: float = 180.0) -> float:
        """Switch it on, and wait until it is ready and lets the holder of the key in; seconds until it was ready."""
        self.machine.start(stick)
        seconds = self.machine.ready_after(within)
        self.machine.await_ssh()
        return seconds

    def status(self) -> dict[str, Any]:
        """The board's slots."""
        status: dict[str, Any] = json.loads(self.machine.run(STATUS))
        return status

    def settled(self, within: float) -> dict[str, Any]:
        """The board's slots, once nothing is on trial and nothing is to be tried. Raises RuntimeError."""
        deadline = time.monotonic() + within * self.machine.patience
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            said = self.machine.run(STATUS, check=False)
            status = json.loads(said) if said.strip() else {}
            if status and status["running"] == status["good"] and not status["tries_left"]:
                return status
            time.sleep(2)
        raise RuntimeError(f"a system is still on trial: {status}")


def require(holds: bool, message: str) -> None:
    """Raise RuntimeError with what did not hold."""
    if not holds:
        raise RuntimeError(message)


def no_failed_units(machine: Machine) -> None:
    """Raise RuntimeError where systemd has given something up."""
    failed = machine.run("systemctl --failed --plain --no-legend --no-pager")
    require(not failed.strip(), f"units have failed: {failed}")


def client_of(machine: Machine) -> OpenAI:
    """OpenAI's own client, with the board's first key."""
    key = machine.run("cat /data/edgeai/first-key.txt").strip()
    address = f"http://127.0.0.1:{machine.ports['http']}/v1"
    return OpenAI(base_url=address, api_key=key, timeout=150 * machine.patience, max_retries=0)


def ask(machine: Machine, question: str = QUESTION) -> str:
    """An answer to a question."""
    client = client_of(machine)
    model = client.models.list().data[0].id
    messages: Any = [{"role": "user", "content": question}]
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
