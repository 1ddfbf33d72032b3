"""What the server said it has: files, answers of a batch, keys. It must be there after every fault."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import openai
from openai.types import Batch
from patience import PATIENCE
from server_client import call
from soak_asks import CHAT, chat
from soak_subject import Subject

ENDED = ("completed", "failed", "cancelled", "expired")


class Promises:
    """Files and a batch by OpenAI's client, and keys. `lost` is what was promised and is not there."""

    def __init__(self, subject: Subject) -> None:
        self.lost: list[str] = []
        self.files: dict[str, tuple[str, str]] = {}  # by id: the key it belongs to, and its digest
        self.batch_lines = 0
        self.kept_lines = 0  # on disk when the server was killed
        self._subject, self._lock = subject, threading.Lock()
        self._batch_id = ""
        self._answered: list[bytes] = []  # lines of answers at the kill
        self._good_keys: dict[str, str] = {}
        self._bad_keys: dict[str, str] = {}

    def uploaded(self, key: str, file_id: str, content: bytes) -> None:
        """The server said that it keeps this."""
        with self._lock:
            self.files[file_id] = key, hashlib.sha256(content).hexdigest()

    def start_batch(self, count: int) -> None:
        """A batch of `count` short chats, which begins while nobody else asks."""
        self.batch_lines = count
        requests = [{"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": _body(n)} for n in range(count)]
        content = "\n".join(map(json.dumps, requests)).encode()
        made = self._client().files.create(file=("batch.jsonl", content), purpose="batch")
        self.uploaded(self._subject.target.keys[0], made.id, content)
        batches = self._client().batches
        self._batch_id = batches.create(
            input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id

    def batch(self) -> Batch:
        """As the server tells of it."""
        return self._client().batches.retrieve(self._batch_id)

    def answered(self) -> int:
        """Lines of the batch that the server says are answered."""
        counts = self.batch().request_counts
        return counts.completed if counts else 0

    def wait_for_answers(self, count: int) -> None:
        """Raises RuntimeError when they do not come."""
        self._wait(lambda: self.answered() >= count, f"{count} answers of the batch")

    def change_keys(self) -> None:
        """One is made and one is revoked, while the server runs."""
        self._good_keys["late"] = self._subject.make_key("late")
        self._bad_keys["gone"] = self._subject.make_key("gone")
        self._subject.revoke_key("gone")

    def note_answers(self, told: int) -> None:
        """Those of the batch that are on disk now that the server is dead, which had told of so many."""
        self._answered = [line for line in self._output().read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
        self.kept_lines = len(self._answered)
        if self.kept_lines < told:
            self.lost.append(f"batch: {told} answers were told of, {self.kept_lines} are on disk")

    def try_full_disk(self) -> str:
        """An upload and a new key that have no room; what is said of the first. A refusal is no broken promise."""
        content = bytes(1 << 20)
        try:
            made = self._client(retries=0).files.create(file=("big", content), purpose="user_data")
        except openai.APIStatusError as error:
            said = f"an upload is answered with {error.status_code}"
            if error.status_code not in (503, 507):
                self.lost.append(f"full disk: {error}")
        else:
            self.uploaded(self._subject.target.keys[0], made.id, content)
            said = "an upload found room"
        try:
            self._good_keys["crammed"] = self._subject.make_key("crammed")
        except RuntimeError:
            said += ", a new key is refused"
        return said

    def check(self) -> None:
        """Files and keys, now."""
        for file_id, (key, digest) in list(self.files.items()):
            try:
                content = self._client(key).files.content(file_id).read()
            except openai.APIError as error:
                self.lost.append(f"{file_id}: {error}")
                continue
            if hashlib.sha256(content).hexdigest() != digest:
                self.lost.append(f"{file_id}: another content")
        for keys, wanted in ((self._good_keys, 200), (self._bad_keys, 401)):
            for name, key in keys.items():
                status = call(self._subject.target.base_url, "/v1/models", key=key).status
                if status != wanted:
                    self.lost.append(f"the key {name} is answered with {status} instead of {wanted}")

    def finish_batch(self) -> None:
        """Wait for its end and look at every answer. Raises RuntimeError when it does not end."""
        self._wait(lambda: self.batch().status in ENDED, "the end of the batch")
        batch = self.batch()
        if batch.status != "completed" or not batch.output_file_id:
            self.lost.append(f"batch: it is {batch.status}: {batch.errors}")
            return
        output = self._client().files.content(batch.output_file_id).read()
        if not output.startswith(b"".join(self._answered)):
            self.lost.append("batch: answers from before the kill are not those of its end")
        answers = [json.loads(line) for line in output.splitlines()]
        counted = Counter(answer["custom_id"] for answer in answers if answer["response"]["status_code"] == 200)
        missing = [n for n in range(self.batch_lines) if counted[f"line-{n}"] != 1]
        if missing:
            self.lost.append(f"batch: not answered once each: lines {missing}")

    def _wait(self, come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not come():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited in vain for {what}: {self.batch()}")
            time.sleep(0.25)

    def _output(self) -> Path:
        return self._subject.home / "work" / "batches" / self._batch_id / "output.jsonl"

    def _client(self, key: str | None = None, *, retries: int = 20) -> openai.OpenAI:
        target = self._subject.target
        return openai.OpenAI(
            base_url=f"{target.base_url}/v1", api_key=key or target.keys[0], max_retries=retries, timeout=PATIENCE
        )


def _body(number: int) -> dict[str, object]:
    return chat(f"{number} pumps", max_tokens=8) | {"model": "default"}
