"""Answers batches, one after the other, behind everybody who waits; what is answered is never asked again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgeai.errors import EdgeaiError, InvalidInput, NotFound, OutOfDisk
from edgeai.package.durable import clean_stale, publish_folder, temporary_folder, write_file
from edgeai.server.batch.batch import ENDED, ENDPOINTS, Batch, BatchRequest, LineError, parse, requests
from edgeai.server.batch.files import FileStore
from edgeai.server.batch.results import ERRORS, OUTPUT, Results

STATE = "batch.json"
PARALLEL = 4  # requests of a batch that are in the server at once: enough to fill the rows that nobody else needs
SHORTEST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds, before a request is tried again that the server had no room for
AGAIN = frozenset({429, 503})  # statuses of a server that has no room now

Post = Callable[[str, dict[str, Any], str], Awaitable[tuple[int, Any, dict[str, str]]]]

log = logging.getLogger("edgeai.server")


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Where files and batches are kept, and how many bytes files may take together."""

    path: Path
    limit: int

    def runner(self, post: Post) -> BatchRunner:
        """The batches of this folder."""
        return BatchRunner(self.path / "batches", FileStore(self.path / "files", self.limit), post)


class BatchRunner:
    """The batches in `folder`. `post` asks the server itself: path, body and client to status, JSON and headers."""

    def __init__(self, folder: Path, files: FileStore, post: Post) -> None:
        self._folder = folder
        self.files = files
        self._post = post
        self._batches: dict[str, Batch] = {}
        self._running: Results | None = None  # those of the batch that is being answered
        self._current: str | None = None
        self._news = asyncio.Event()
        self._cancelled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take up what the last server left, and wait for more; in the loop of the server."""
        if self._folder.exists():
            clean_stale(self._folder)
        self.files.recover()
        found = [Batch.from_json(path.read_bytes()) for path in self._folder.glob(f"batch_*/{STATE}")]
        self._batches = {batch.id: batch for batch in found}
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Leave off; the next server goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def create(self, owner: str, endpoint: str, input_file_id: str, **options: Any) -> Batch:
        """A new batch, which is on disk when this returns. Raises `InvalidInput`, `NotFound`, `OutOfDisk`."""
        if endpoint not in ENDPOINTS:
            raise InvalidInput(f"no batch of {endpoint!r}", f"there is {', '.join(ENDPOINTS)}", param="endpoint")
        if self.files.get(input_file_id, owner).purpose != "batch":
            raise InvalidInput("the purpose of the input file is not batch", param="input_file_id")
        batch = Batch.new(owner, endpoint, input_file_id, **options)
        self._folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self._folder) as temporary:
            write_file(temporary / STATE, batch.as_json())
            publish_folder(temporary, self._folder / batch.id)
        self._batches[batch.id] = batch
        self._news.set()
        return batch

    def get(self, batch_id: str, owner: str) -> Batch:
        """A batch as it stands. Raises `NotFound`, also for one of somebody else."""
        batch = self._batches.get(batch_id)
        if batch is None or batch.owner != owner:
            raise NotFound(f"there is no batch {batch_id!r}", "GET /v1/batches lists them", param="batch_id")
        return self._counted(batch)

    def all(self, owner: str) -> list[Batch]:
        """The batches of `owner`, the newest first."""
        mine = [self._counted(batch) for batch in self._batches.values() if batch.owner == owner]
        return sorted(mine, key=lambda batch: (batch.times["created"], batch.id), reverse=True)

    def cancel(self, batch_id: str, owner: str) -> Batch:
        """End a batch early; what has been answered stays. Raises `NotFound`, `InvalidInput` for one that has ended."""
        batch = self.get(batch_id, owner)
        if batch.status in ENDED:
            raise InvalidInput(f"the batch is {batch.status}", "only one that has not ended can be cancelled")
        batch = self._save(batch.at("cancelling"))
        if batch.id == self._current:
            self._cancelled.set()
        self._news.set()
        return batch

    def _counted(self, batch: Batch) -> Batch:
        """With the counts of now: they are in the files of results, not written again for each answer."""
        if batch.id != self._current or self._running is None:
            return batch
        counts = self._running.counts
        return replace(batch, completed=counts[OUTPUT], failed=counts[ERRORS])

    def _save(self, batch: Batch) -> Batch:
        write_file(self._folder / batch.id / STATE, batch.as_json())
        self._batches[batch.id] = batch
        return batch

    async def _work(self) -> None:
        while True:
            waiting = [batch for batch in self._batches.values() if batch.status not in ENDED]
            if not waiting:
                self._news.clear()
                await self._news.wait()
                continue
            first = min(waiting, key=lambda batch: (batch.times["created"], batch.id))
            try:
                await self._run_or_fail(first)
            except OutOfDisk as error:
                log.warning("%s waits: %s", first.id, error)
                await asyncio.sleep(LONGEST_WAIT)

    async def _run_or_fail(self, batch: Batch) -> None:
        """Run a batch; one that cannot be run has failed. Raises `OutOfDisk`, also when there is no room to say so."""
        try:
            await self._run(batch)
        except OutOfDisk:
            raise
        except Exception as error:
            log.exception("%s failed", batch.id)
            self._save(self._batches[batch.id].at("failed", errors=_because(error)))

    async def _run(self, batch: Batch) -> None:
        """Bring a batch to its end, from wherever it is."""
        if batch.status == "validating":
            total, errors = await asyncio.to_thread(parse, partial(self._lines, batch), batch.endpoint)
            now = self._batches[batch.id]  # it may have been cancelled meanwhile
            batch = self._save(now.at("failed", errors=errors) if errors else _begun(now, total))
            if errors:
                return
        with Results(self._folder / batch.id) as results:
            self._current, self._running = batch.id, results
            try:
                await self._answer(batch, results)
            finally:
                self._batches[batch.id] = self._counted(self._batches[batch.id])  # to be told of while it waits
                self._current = self._running = None
            await self._finish(self._batches[batch.id], results)

    def _lines(self, batch: Batch) -> Generator[bytes, None, None]:
        with self.files.path(batch.input_file_id, batch.owner).open("rb") as file:
            yield from filter(bytes.strip, file)

    async def _answer(self, batch: Batch, results: Results) -> None:
        """Ask whatever has no answer yet, until all have one or the batch is cancelled."""
        if batch.status != "in_progress":
            return
        self._cancelled.clear()
        lines = self._lines(batch)
        todo = (each for each in requests(lines) if each.custom_id not in results.done)
        writing = asyncio.Lock()
        cancelled = asyncio.create_task(self._cancelled.wait())
        workers = [asyncio.create_task(self._worker(batch, todo, results, writing)) for _ in range(PARALLEL)]
        working = asyncio.gather(*workers)
        try:
            await asyncio.wait((working, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()  # raises what a worker raised
        finally:
            for task in (*workers, cancelled):
                task.cancel()  # also those that go on beside one that failed: the files of results close now
            await asyncio.gather(working, *workers, cancelled, return_exceptions=True)
            lines.close()  # and the file with them

    async def _worker(
        self, batch: Batch, todo: Iterator[BatchRequest], results: Results, writing: asyncio.Lock
    ) -> None:
        for request in todo:
            status, answer = await self._ask(batch, request)
            async with writing:
                await _to_its_end(asyncio.to_thread(results.add, request.custom_id, status, answer))

    async def _ask(self, batch: Batch, request: BatchRequest) -> tuple[int, Any]:
        """The answer to a request, which waits for as long as the server has no room for it, twice as long each time:
        a server that is busy all day is not asked, and does not log, every second.
        """
        body = {"service_tier": "flex", **request.body}
        wait = SHORTEST_WAIT / 2
        while True:
            status, answer, headers = await self._post(batch.endpoint, body, batch.owner)
            if status not in AGAIN:
                return status, answer
            log.info("%s waits: %s", batch.id, answer["error"]["message"])
            wait = min(LONGEST_WAIT, max(2 * wait, float(headers.get("retry-after", "1"))))
            await asyncio.sleep(wait)

    async def _finish(self, batch: Batch, results: Results) -> None:
        """Publish the results as files. Done again after a crash, it gives the same files."""
        counts = {"completed": results.counts[OUTPUT], "failed": results.counts[ERRORS]}
        cancelled = batch.status == "cancelling"
        if not cancelled:
            batch = self._save(batch.at("finalizing", **counts))
        for name, file_id in ((OUTPUT, batch.output_file_id), (ERRORS, batch.error_file_id)):
            if results.counts[name]:
                content = await asyncio.to_thread(results.read, name)
                keep = partial(self.files.add, f"{batch.id}_{name}", "batch_output", content, batch.owner)
                await asyncio.to_thread(keep, file_id=file_id)
        self._save(batch.at("cancelled" if cancelled else "completed", **counts))


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await what a thread does; cancelled meanwhile, only once it is done, for nothing stops a thread."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()  # raises what went wrong, rather
        raise


def _begun(batch: Batch, total: int) -> Batch:
    """As its first request is asked; one that was cancelled before has none."""
    return batch.at("in_progress", total=total) if batch.status == "validating" else batch


def _because(error: Exception) -> tuple[LineError, ...]:
    """Why a batch failed as a whole; what is not meant for clients is in the log only."""
    told = error.message if isinstance(error, EdgeaiError) else "the server failed at this batch; its log says why"
    return (LineError(None, "server_error", told),)
