"""A system that is tried after an update proves itself by answering, or the board goes back to the one before.

Only then: a system that was good stays, whatever happens to it, for there may be nothing better in the other slot.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from edgeai.appliance.boot_partition import writable
from edgeai.appliance.slots import open_slots
from edgeai.config import home_dir
from edgeai.package.store import PACKAGES_FOLDER

HEALTHY_WITHIN = "EDGEAI_HEALTHY_WITHIN"  # seconds; `systemd.setenv=` on a kernel's command line sets it
HEALTHY_WITHIN_SECONDS = 900.0  # slow boards read a model for minutes
ANSWER_SECONDS = 300
BETWEEN_SECONDS = 2
ADDRESS = ("127.0.0.1", 80)
EDGEAI = "/usr/bin/edgeai"
KEY_NAME = "health"
GOOD = Path("/run/edgeai/good")  # this system need not prove itself any more; edgeai-trial.service looks for it
NETWORK_UNITS = ("nftables.service", "systemd-networkd.service")
QUESTION = {"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 8, "temperature": 0}


# What asking raises, and an answer of another form than was expected.
_NOT_YET = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError, CalledProcessError)


def reachable() -> bool:
    """Whether the firewall is there and the network behind it: without the one there is not the other."""
    return all(subprocess.run(["systemctl", "is-active", "--quiet", unit]).returncode == 0 for unit in NETWORK_UNITS)


def get_ready() -> bool:
    """Whether the server has loaded its model."""
    return _ask("GET", "/health/ready")[0] == http.HTTPStatus.OK


def answers() -> bool:
    """Whether it answers a question, with a key that is there for so long."""
    _edgeai("keys", "revoke", KEY_NAME, check=False)  # the power may have gone while it was asked
    key = json.loads(_edgeai("keys", "create", KEY_NAME, "--scope", "chat", "--days", "0.05", "--json"))["key"]
    try:
        status, document = _ask("POST", "/v1/chat/completions", QUESTION, key)
    finally:
        _edgeai("keys", "revoke", KEY_NAME)
    return sound(status, document)


def sound(status: int, document: Any) -> bool:
    """Whether a server that works may say that: text, be it of a thought, or that it has no model for chats.

    Nothing else: one that knows no key, or answers nobody in all that time, is of no use.
    """
    if status == http.HTTPStatus.OK:
        message = document["choices"][0]["message"]
        return any((message.get(part) or "").strip() for part in ("content", "reasoning_content"))
    _warn(f"the server refused a question with {status}: {document}")
    return status == http.HTTPStatus.NOT_FOUND


def nothing_to_serve(home: Path) -> bool:
    """Whether the data partition is there and has no model: then there is no server to ask."""
    return home.is_dir() and not any((home / PACKAGES_FOLDER).glob("[!.]*"))


def checks_for(home: Path) -> tuple[Callable[[], bool], ...]:
    """What has to hold; without models there is no server to ask."""
    return (reachable,) if nothing_to_serve(home) else (reachable, get_ready, answers)


def healthy(within_seconds: float, checks: tuple[Callable[[], bool], ...]) -> bool:
    """Whether all checks hold in time, tried again until then."""
    deadline = time.monotonic() + within_seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if all(check() for check in checks):
                return True
        except _NOT_YET as error:
            if repr(error) != last:
                last = repr(error)
                _warn(f"not yet: {last}")
        time.sleep(BETWEEN_SECONDS)
    return False


def main() -> None:
    """Commit the running system, or give it up and start the other one."""
    slots = open_slots()
    if not slots.status().on_trial:
        GOOD.touch()
        return
    within = float(os.environ.get(HEALTHY_WITHIN, HEALTHY_WITHIN_SECONDS))
    if healthy(within, checks_for(home_dir())):
        with writable(slots.boot):
            slots.commit()
        GOOD.touch()
        print(f"slot {slots.current()} is good")
        return
    _warn(f"slot {slots.current()} is not healthy: back to the other one")
    try:
        with writable(slots.boot):
            slots.give_up()
    except (OSError, CalledProcessError) as error:  # then the loader's count ends the trial
        _warn(f"its trial cannot be ended: {error}")
    subprocess.run(["systemctl", "reboot"], check=True)


def _warn(text: str) -> None:
    """Into the log, with sd-daemon(3)'s prefix for a warning: those are kept when the board starts again."""
    print(f"<4>{text}", file=sys.stderr)


def _ask(method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(*ADDRESS, timeout=ANSWER_SECONDS)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def _edgeai(*arguments: str, check: bool = True) -> str:
    command = ["setpriv", "--reuid=edgeai", "--regid=edgeai", "--clear-groups", EDGEAI, *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
