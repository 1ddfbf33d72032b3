"""Serves the web page: its files as they are, under a policy that lets it run these and nothing else."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from edgeai.server.ollama.root import looks_for_ollama, running

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page; `tag` changes with its content."""

    content: bytes
    media_type: str
    tag: str


def router() -> APIRouter:
    """`/`, `/sw.js` (a service worker rules what lies beside and below it) and `/web/...`."""
    routes = APIRouter(include_in_schema=False)

    async def index(request: Request) -> Response:
        return running() if looks_for_ollama(request) else answer(request, "index.html")

    async def worker(request: Request) -> Response:
        return answer(request, "sw.js")

    async def file(request: Request, name: str) -> Response:
        return answer(request, name)

    for path, handler in (("/", index), ("/sw.js", worker), ("/web/{name:path}", file)):
        routes.add_api_route(path, handler, methods=["GET", "HEAD"])
    return routes


def answer(request: Request, name: str) -> Response:
    """The file `name`, or 304 where the client has it already. Raises 404 for what is not there."""
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404, f"the page has no file {name!r}")
    headers = {**HEADERS, "etag": asset.tag}
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@functools.cache
def assets() -> dict[str, Asset]:
    """All files of the page by their paths, read once."""
    return dict(_files(resources.files(__package__), ""))


def _files(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in folder.iterdir():
        kind = TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            found += _files(entry, f"{prefix}{entry.name}/")
        elif kind is not None:
            content = entry.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found.append((prefix + entry.name, Asset(content, kind, tag)))
    return found
