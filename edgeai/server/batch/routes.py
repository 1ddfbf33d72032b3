"""`/v1/files` and `/v1/batches`, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, UploadFile
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from edgeai.errors import InvalidInput
from edgeai.server.batch.batch import Batch
from edgeai.server.batch.files import FileEntry, FileStore, new_file_id
from edgeai.server.batch.runner import BatchRunner
from edgeai.server.protocol import ApiModel

PURPOSES = ("batch", "user_data")
Limit = Annotated[int, Query(ge=1, le=10_000)]
Label = Annotated[str, Field(max_length=64)]
Metadata = Annotated[dict[Label, Annotated[str, Field(max_length=512)]], Field(max_length=16)]


class BatchBody(ApiModel):
    """Body of `POST /v1/batches`. The window is noted; a batch ends when it is answered."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Metadata | None = None


def owner_of(request: Request) -> str:
    """Whose files and batches a request may see: those of its key, or of all without one."""
    owner: str = request.scope["state"].get("client") or ""
    return owner


def file_router(files: FileStore) -> APIRouter:
    """The endpoints over `files`."""
    routes = APIRouter(prefix="/v1/files")

    @routes.post("")
    async def upload(request: Request, file: UploadFile, purpose: Annotated[str, Form()]) -> dict[str, Any]:
        if purpose not in PURPOSES:
            raise InvalidInput(f"no purpose {purpose!r}", f"there is {', '.join(PURPOSES)}", param="purpose")
        content = await file.read()
        entry = await run_in_threadpool(files.add, file.filename or "file", purpose, content, owner_of(request))
        return entry.as_dict()

    @routes.get("")
    def list_files(
        request: Request, purpose: str | None = None, after: str | None = None, limit: Limit = 10_000
    ) -> dict[str, Any]:
        found = [entry for entry in files.all(owner_of(request)) if purpose in (None, entry.purpose)]
        return page(found, after, limit)

    @routes.get("/{file_id}")
    def one_file(request: Request, file_id: str) -> dict[str, Any]:
        return files.get(file_id, owner_of(request)).as_dict()

    @routes.get("/{file_id}/content", response_class=FileResponse)
    def content(request: Request, file_id: str) -> FileResponse:
        return FileResponse(files.path(file_id, owner_of(request)), media_type="application/octet-stream")

    @routes.delete("/{file_id}")
    def delete(request: Request, file_id: str) -> dict[str, Any]:
        files.remove(file_id, owner_of(request))
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def batch_router(runner: BatchRunner) -> APIRouter:
    """The endpoints over the batches of `runner`. None runs in a thread: its state belongs to the server's loop."""
    routes = APIRouter(prefix="/v1/batches")

    @routes.post("")
    async def create(request: Request, body: BatchBody) -> dict[str, Any]:
        ids = {"output_file_id": new_file_id(), "error_file_id": new_file_id()}
        options = {"window": body.completion_window, "metadata": body.metadata, **ids}
        return runner.create(owner_of(request), body.endpoint, body.input_file_id, **options).as_dict()

    @routes.get("")
    async def list_batches(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        return page(runner.all(owner_of(request)), after, limit)

    @routes.get("/{batch_id}")
    async def one_batch(request: Request, batch_id: str) -> dict[str, Any]:
        return runner.get(batch_id, owner_of(request)).as_dict()

    @routes.post("/{batch_id}/cancel")
    async def cancel(request: Request, batch_id: str) -> dict[str, Any]:
        return runner.cancel(batch_id, owner_of(request)).as_dict()

    return routes


def page(entries: Sequence[FileEntry] | Sequence[Batch], after: str | None, limit: int) -> dict[str, Any]:
    """At most `limit` entries of a list, those after the one with the id `after`. Raises `InvalidInput`."""
    ids = [entry.id for entry in entries]
    if after is not None and after not in ids:
        raise InvalidInput(f"the list has no {after!r}", param="after")
    start = 0 if after is None else ids.index(after) + 1
    shown = entries[start : start + limit]
    return {
        "object": "list",
        "data": [entry.as_dict() for entry in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": start + limit < len(entries),
    }
