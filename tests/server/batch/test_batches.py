"""Batches through the real client, and whatever may stop one in the middle."""

from __future__ import annotations

import asyncio
import json
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from edgeai.errors import InvalidInput, NotFound, OutOfDisk
from edgeai.server.app import create_app
from edgeai.server.batch.batch import ENDED, Batch, parse
from edgeai.server.batch.files import FileStore
from edgeai.server.batch.results import ERRORS, OUTPUT, Results
from edgeai.server.batch.runner import BatchRunner, WorkFolder
from tests.fixtures.patience import PATIENCE, eventually
from tests.server.clients import strict_client
from tests.server.scripted import Script, ScriptedModel
from tests.server.serving import Served, pool_of, serving

CHAT = "/v1/chat/completions"


def line(number: int, *, url: str = CHAT, **body: Any) -> str:
    whole = {"messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 8, **body}
    return json.dumps({"custom_id": f"q{number}", "method": "POST", "url": url, "body": whole})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    model = ScriptedModel(Script(text="Yes."))
    app = create_app(pool_of(model), work=WorkFolder(tmp_path, 1 << 20))
    with serving(model, app=app) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with strict_client(served.url) as made:
        yield made


def upload(client: openai.OpenAI, *lines: str) -> str:
    return client.files.create(file=("work.jsonl", "\n".join(lines).encode()), purpose="batch").id


def run(client: openai.OpenAI, *lines: str, endpoint: Any = CHAT) -> Any:
    made = client.batches.create(input_file_id=upload(client, *lines), endpoint=endpoint, completion_window="24h")
    assert eventually(lambda: client.batches.retrieve(made.id).status in ENDED)
    return client.batches.retrieve(made.id)


def test_a_batch_is_answered(client: openai.OpenAI) -> None:
    batch = run(client, *(line(number) for number in range(10)), "")
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.request_counts.model_dump() == {"total": 10, "completed": 10, "failed": 0}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    answers = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(each["custom_id"] for each in answers) == sorted(f"q{number}" for number in range(10))
    for each in answers:
        assert (each["error"], each["response"]["status_code"]) == (None, 200)
        assert each["response"]["body"]["choices"][0]["message"]["content"] == "Yes."
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_responses_can_be_batched(client: openai.OpenAI) -> None:
    responses: Any = "/v1/responses"
    batch = run(client, line(1, url=responses, input="Hello"), endpoint=responses)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1)
    (answer,) = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    assert answer["response"]["body"]["output"][0]["content"][0]["text"] == "Yes."


def test_what_fails_is_in_the_file_of_errors(client: openai.OpenAI) -> None:
    batch = run(client, line(1), line(2, temperature=99), line(3, model="nobody"))
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 2}
    failed = {
        each["custom_id"]: each for each in map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    }
    assert failed["q2"]["response"]["status_code"] == 400
    assert "temperature" in failed["q2"]["response"]["body"]["error"]["message"]
    assert failed["q3"]["response"]["status_code"] == 404


def test_a_wrong_input_is_refused_line_by_line(client: openai.OpenAI) -> None:
    wrong = ["{", "[]", line(1), line(1), line(2, url="/v1/completions"), line(3, stream=True), '{"custom_id": 4}']
    batch = run(client, *wrong)
    assert batch.status == "failed"
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (1, "invalid_json_line"),
        (2, "invalid_request"),
        (4, "duplicate_custom_id"),
        (5, "mismatched_endpoint"),
        (6, "invalid_request"),
        (7, "missing_required_parameter"),
    ]
    assert run(client, "").errors.data[0].code == "empty_file"


def test_a_batch_is_cancelled(client: openai.OpenAI, served: Served) -> None:
    served.model.script = Script(text="Slow answer.", delay=0.05)
    made = client.batches.create(
        input_file_id=upload(client, *map(line, range(100))), endpoint=CHAT, completion_window="24h"
    )
    assert eventually(lambda: (client.batches.retrieve(made.id).request_counts.completed or 0) > 1)
    assert client.batches.cancel(made.id).status == "cancelling"
    assert eventually(lambda: client.batches.retrieve(made.id).status == "cancelled")
    ended = client.batches.retrieve(made.id)
    kept = client.files.content(ended.output_file_id).text.splitlines()
    assert 1 < len(kept) == ended.request_counts.completed < 100
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        client.batches.cancel(made.id)


def test_an_answer_that_is_being_written_when_a_batch_is_cancelled_counts(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, writing = Results.add, threading.Event()

    def add(results: Results, *answer: Any) -> None:
        writing.set()
        time.sleep(0.3)
        original(results, *answer)

    monkeypatch.setattr(Results, "add", add)
    made = client.batches.create(input_file_id=upload(client, line(1), line(2)), endpoint=CHAT, completion_window="24h")
    assert writing.wait(PATIENCE)
    client.batches.cancel(made.id)
    assert eventually(lambda: client.batches.retrieve(made.id).status == "cancelled")
    ended = client.batches.retrieve(made.id)
    kept = client.files.content(ended.output_file_id).text.splitlines()
    assert len(kept) == ended.request_counts.completed == 1


def test_files_are_listed_read_and_deleted(client: openai.OpenAI) -> None:
    one, two = upload(client, line(1)), upload(client, line(2))
    assert {entry.id for entry in client.files.list()} == {one, two}
    assert client.files.content(one).read() == line(1).encode()
    assert client.files.delete(one).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.retrieve(one)
    assert [entry.id for entry in client.files.list(purpose="batch", limit=1)] == [two]


def test_batches_are_listed_page_by_page(client: openai.OpenAI) -> None:
    made = [run(client, line(number)).id for number in range(3)]
    first = client.batches.list(limit=2)
    assert first.has_more
    assert sorted(batch.id for batch in first) == sorted(made)  # the client turns the pages
    with pytest.raises(openai.BadRequestError):
        client.batches.list(after="batch_x")


@pytest.mark.parametrize(
    "path", ["/v1/files/file-..%2f..%2fetc", "/v1/files/file-000000000000000000000000", "/v1/batches/x"]
)
def test_what_is_not_there_is_not_found(served: Served, path: str) -> None:
    answer = httpx.get(served.url + path, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        404,
        "not_found" if "%" not in path else "unknown_url",
    )


def test_wrong_requests_are_refused(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="no batch of"):
        client.batches.create(
            input_file_id=upload(client, line(1)), endpoint="/v1/moderations", completion_window="24h"
        )
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="no purpose"):
        client.files.create(file=("a", b"x"), purpose="fine-tune")
    other = client.files.create(file=("a", b"x"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="purpose of the input file"):
        client.batches.create(input_file_id=other, endpoint=CHAT, completion_window="24h")
    assert httpx.post(f"{served.url}/v1/files", json={}, timeout=PATIENCE).status_code == 415
    assert httpx.post(f"{served.url}/v1/files", files={"file": b"x"}, timeout=PATIENCE).status_code == 400


def test_the_disk_is_not_filled(client: openai.OpenAI) -> None:
    upload(client, "x" * 600_000)
    with pytest.raises(openai.InternalServerError, match="have no room") as error:
        upload(client, "x" * 600_000)
    assert error.value.status_code == 507


class Server:
    """Answers as the server would: notes who asked what, is busy now and then, and can be held up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hold = asyncio.Event()
        self.after = 10**9  # answers, before it is held up

    async def post(self, path: str, body: dict[str, Any], client: str) -> tuple[int, Any, dict[str, str]]:
        if len(self.asked) >= self.after:
            await self.hold.wait()
        question = body["messages"][0]["content"]
        self.asked.append(question)
        busy = len(self.asked) % 3 == 0
        await asyncio.sleep(0)
        if busy:
            return 503, {"error": {"message": "7 requests are waiting already"}}, {"retry-after": "0"}
        return 200, {"to": question, "tier": body["service_tier"], "client": client}, {}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeai.server.batch.runner.SHORTEST_WAIT", 0.0)


def runner(tmp_path: Path, server: Server) -> BatchRunner:
    return WorkFolder(tmp_path, 1 << 20).runner(server.post)


def test_a_busy_server_is_asked_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await really_sleep(0)

    async def post(path: str, body: dict[str, Any], client: str) -> tuple[int, Any, dict[str, str]]:
        if len(waits) < 9:
            return 503, {"error": {"message": "7 requests are waiting already"}}, {"retry-after": "1"}
        return 200, {}, {}

    async def main() -> None:
        runs = WorkFolder(tmp_path, 1 << 20).runner(post)
        runs.start()
        entry = runs.files.add("work.jsonl", "batch", line(1).encode(), "clinic")
        ids = {"output_file_id": "file-" + "1" * 24, "error_file_id": "file-" + "2" * 24}
        batch = runs.create("clinic", CHAT, entry.id, window="24h", metadata=None, **ids)
        while runs.get(batch.id, "clinic").status != "completed":
            await really_sleep(0.001)
        await runs.stop()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(main())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("after", [0, 1, 5, 13, 24])
def test_a_batch_goes_on_where_the_last_server_ended(tmp_path: Path, after: int) -> None:
    """Whatever was answered is never asked again, also when the power was cut in the middle of a line."""

    async def first() -> str:
        server = Server()
        server.after = after
        runs = runner(tmp_path, server)
        runs.start()
        entry = runs.files.add("work.jsonl", "batch", "\n".join(map(line, range(20))).encode(), "clinic")
        batch = runs.create(
            "clinic",
            CHAT,
            entry.id,
            output_file_id="file-" + "1" * 24,
            error_file_id="file-" + "2" * 24,
            window="24h",
            metadata=None,
        )
        while len(server.asked) < after or not (tmp_path / "batches" / batch.id / OUTPUT).exists():
            await asyncio.sleep(0.001)
        await runs.stop()
        return batch.id

    async def second(batch_id: str) -> tuple[Batch, bytes]:
        runs = runner(tmp_path, Server())
        runs.start()
        while runs.get(batch_id, "clinic").status not in ENDED:
            await asyncio.sleep(0.001)
        ended = runs.get(batch_id, "clinic")
        content = runs.files.read(ended.output_file_id, "clinic")
        await runs.stop()
        return ended, content

    batch_id = asyncio.run(first())
    output = tmp_path / "batches" / batch_id / OUTPUT
    answered = [json.loads(each)["custom_id"] for each in output.read_bytes().splitlines()]
    with output.open("ab") as file:
        file.write(b'{"id": "batch_req_1", "custom_id": "q19", "resp')
    ended, content = asyncio.run(second(batch_id))
    lines = [json.loads(each) for each in content.splitlines()]
    assert (ended.status, ended.completed, ended.failed, ended.total) == ("completed", 20, 0, 20)
    assert Counter(each["custom_id"] for each in lines) == Counter(f"q{number}" for number in range(20))
    assert [each["custom_id"] for each in lines][: len(answered)] == answered
    assert {(each["response"]["body"]["tier"], each["response"]["body"]["client"]) for each in lines} == {
        ("flex", "clinic")
    }


def test_nobody_sees_what_others_have(tmp_path: Path) -> None:
    async def main() -> None:
        runs = runner(tmp_path, Server())
        runs.start()
        entry = runs.files.add("a", "batch", line(1).encode(), "clinic")
        ids = {"output_file_id": "file-" + "1" * 24, "error_file_id": "file-" + "2" * 24}
        batch = runs.create("clinic", CHAT, entry.id, window="24h", metadata=None, **ids)
        for forbidden in (
            lambda: runs.files.get(entry.id, "school"),
            lambda: runs.get(batch.id, "school"),
            lambda: runs.create("school", CHAT, entry.id, window="24h", metadata=None, **ids),
        ):
            with pytest.raises(NotFound):
                forbidden()
        assert (runs.all("school"), runs.files.all("school")) == ([], [])
        await runs.stop()

    asyncio.run(main())


def test_a_full_disk_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeai.server.batch.runner.LONGEST_WAIT", 0.01)
    fails = iter([True, True])
    original = Results.add

    def add(self: Results, *arguments: Any) -> None:
        if next(fails, False):
            raise OutOfDisk("no room")
        original(self, *arguments)

    monkeypatch.setattr(Results, "add", add)

    ended = run_batch(tmp_path)
    assert (ended.status, ended.completed) == ("completed", 9)


def test_no_room_to_say_that_a_batch_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeai.server.batch.runner.LONGEST_WAIT", 0.01)
    add, save = Results.add, BatchRunner._save
    fails, full = iter([True]), iter([True])

    def failing_add(self: Results, *arguments: Any) -> None:
        if next(fails, False):
            raise OSError("the disk is odd")
        add(self, *arguments)

    def full_save(self: BatchRunner, batch: Batch) -> Batch:
        if batch.status == "failed" and next(full, False):
            raise OutOfDisk("no room")
        return save(self, batch)

    monkeypatch.setattr(Results, "add", failing_add)
    monkeypatch.setattr(BatchRunner, "_save", full_save)
    ended = run_batch(tmp_path)
    assert (ended.status, ended.completed) == ("completed", 9)


def test_a_batch_that_waits_for_room_tells_what_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Results.add
    room = iter([True] * 3)

    def full_add(self: Results, *arguments: Any) -> None:
        if not next(room, False):
            raise OutOfDisk("no room")
        add(self, *arguments)

    monkeypatch.setattr(Results, "add", full_add)

    async def main() -> int:
        runs = runner(tmp_path, Server())
        runs.start()
        batch = nine_lines(runs)
        while runs._current or runs.get(batch.id, "").status != "in_progress":
            await asyncio.sleep(0.001)
        await runs.stop()
        return runs.get(batch.id, "").completed

    assert asyncio.run(main()) == 3


def test_no_request_goes_on_while_a_batch_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer would be lost, and it would be asked again."""

    def full_add(self: Results, *arguments: Any) -> None:
        raise OutOfDisk("no room")

    monkeypatch.setattr(Results, "add", full_add)

    async def main() -> tuple[int, int]:
        server = Server()
        server.after = 1  # the others are in the server when the first finds no room
        runs = runner(tmp_path, server)
        runs.start()
        batch = nine_lines(runs)
        while runs._current or runs.get(batch.id, "").status != "in_progress":
            await asyncio.sleep(0.001)
        server.hold.set()
        for _ in range(20):
            await asyncio.sleep(0)
        await runs.stop()
        return len(server.asked), runs.get(batch.id, "").completed

    assert asyncio.run(main()) == (1, 0)


def nine_lines(runs: BatchRunner) -> Batch:
    """A batch that has just been asked for."""
    entry = runs.files.add("a", "batch", "\n".join(map(line, range(9))).encode(), "")
    ids = {"output_file_id": "file-" + "1" * 24, "error_file_id": "file-" + "2" * 24}
    return runs.create("", CHAT, entry.id, window="24h", metadata=None, **ids)


def run_batch(folder: Path) -> Batch:
    """A batch of nine lines, from its beginning to its end."""

    async def main() -> Batch:
        runs = runner(folder, Server())
        runs.start()
        batch = nine_lines(runs)
        while runs.get(batch.id, "").status not in ENDED:
            await asyncio.sleep(0.001)
        await runs.stop()
        return runs.get(batch.id, "")

    return asyncio.run(main())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nothing_is_left_of_a_line_that_has_no_room(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add("a", 200, {})
        with files_of_at_most((tmp_path / OUTPUT).stat().st_size + 50), pytest.raises(OSError, match="too large"):
            results.add("b", 200, {"text": "x" * 2000})
        results.add("c", 200, {})
        results.add("b", 200, {})
    lines = (tmp_path / OUTPUT).read_bytes().splitlines()
    assert [json.loads(each)["custom_id"] for each in lines] == ["a", "c", "b"]


def test_lines_are_on_disk_before_they_count(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add("a", 200, {"x": 1})
        results.add("b", 400, {"error": {}})
        assert (results.counts, results.done) == ({OUTPUT: 1, ERRORS: 1}, {"a", "b"})
    whole = (tmp_path / OUTPUT).read_bytes()
    for cut in range(len(whole)):
        (tmp_path / OUTPUT).write_bytes(whole[:cut])
        with Results(tmp_path) as results:
            assert results.done == {"b"}
        assert (tmp_path / OUTPUT).read_bytes() == b""


def test_a_file_that_is_replaced_is_whole(tmp_path: Path) -> None:
    files = FileStore(tmp_path, 1 << 20)
    files.recover()
    (tmp_path / ".tmp-left").mkdir(exist_ok=True)
    for content in (b"one", b"two"):
        files.add("a", "batch_output", content, "", file_id="file-" + "3" * 24)
    assert [entry.size for entry in files.all("")] == [3]
    assert files.read("file-" + "3" * 24, "") == b"two"


def test_batches_are_not_unlimited() -> None:
    many = [line(number).encode() for number in range(50_002)]
    count, errors = parse(lambda: iter(many), CHAT)
    assert [error.code for error in errors] == ["too_many_requests"]
    assert count > 50_000


def test_only_endpoints_that_batches_have(tmp_path: Path) -> None:
    async def main() -> None:
        runs = runner(tmp_path, Server())
        with pytest.raises(InvalidInput, match=r"/v1/embeddings"):
            runs.create("", "/health", "x")

    asyncio.run(main())
