"""`GET /bundles` and `GET /bundles/{name}`: the installed models for other boards, as `edgeai import` takes them.

A bundle is made from the model's files while it is sent, from wherever the client goes on (RFC 9110, Range): it takes
no room on the disk. One that was imported, or exported with a key, keeps its publisher's signatures, so that whoever
gets it from here need not trust this board.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from edgeai.bundle.head import Head
from edgeai.bundle.models import Parts, head_of
from edgeai.bundle.writer import stream
from edgeai.config import home_dir
from edgeai.package.store import Store

MEDIA_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_SOME = 4  # heads in memory


@dataclass(frozen=True)
class Offer:
    """A bundle that can be sent."""

    head: Head
    files: dict[str, Path]

    def bytes(self, start: int, stop: int) -> Iterator[bytes]:
        """From `start` to `stop`."""
        return stream(self.head, self.files, start, stop)


class Shelf:
    """The bundles of all installed models. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the first look at a model reads all of it: one at a time
        self._offers: dict[tuple[str, ...], Offer] = {}

    def all(self) -> list[dict[str, Any]]:
        """What there is, as a list for clients."""
        return [
            {"id": package.path.name, "object": "bundle", "version": package.digest[:12], "size": package.size_bytes}
            for package in Store(home_dir()).list()
        ]

    def get(self, name: str) -> Offer:
        """Raises `NotFound`, `PackageError`, `InvalidInput` for what is no name."""
        home = home_dir()
        parts = Parts.of(Store(home).get(name), home)
        key = (name, parts.package.digest, *(adapter.digest for adapter in parts.adapters))
        with self._lock:
            if key not in self._offers or not parts.match(self._offers[key].head):
                while len(self._offers) >= _SOME:
                    del self._offers[next(iter(self._offers))]
                self._offers[key] = Offer(head_of(parts, home), parts.files)
            return self._offers[key]


def router() -> APIRouter:
    """The endpoints over the home's models."""
    routes, shelf = APIRouter(prefix="/bundles"), Shelf()

    @routes.get("")
    def list_bundles() -> dict[str, Any]:
        return {"object": "list", "data": shelf.all()}

    @routes.get("/{name}", response_class=StreamingResponse)
    def one_bundle(request: Request, name: str) -> Response:
        offer = shelf.get(name)
        return _answer(offer, request.headers.get("range"))

    return routes


def _answer(offer: Offer, asked: str | None) -> Response:
    """All of it, or the range that was asked for; other kinds of ranges may be answered with all (RFC 9110, 14.2)."""
    size = offer.head.size_bytes
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{offer.head.digest}"', "Cache-Control": "no-transform"}
    found = _RANGE.fullmatch(asked or "")
    start = int(found[1]) if found else 0
    stop = min(int(found[2]) + 1, size) if found and found[2] else size
    if found and start >= size:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    if not found or start >= stop:
        found, start, stop = None, 0, size
    headers |= {"Content-Length": str(stop - start)}
    if found:
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return StreamingResponse(
        offer.bytes(start, stop), status_code=206 if found else 200, headers=headers, media_type=MEDIA_TYPE
    )
