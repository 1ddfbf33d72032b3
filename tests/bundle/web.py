"""A static file server on the loopback, with ranges or without, that cuts connections at random."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Web:
    """What goes wrong, and what was asked for."""

    folder: Path
    url: str = ""
    ranges: bool = True
    cut_after: int = 0  # bytes of an answer after which it may be cut; 0: none is
    cuts: int = 0
    sent: int = 0  # bytes of bodies
    asked: list[str | None] = field(default_factory=list)  # the ranges
    chance: random.Random = field(default_factory=lambda: random.Random(3))


class Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    def do_GET(self) -> None:
        web, path = self.web, self.web.folder / self.path.lstrip("/")
        asked = self.headers.get("Range")
        web.asked.append(asked)
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start, stop = 0, len(data)
        if asked and web.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if asked and web.ranges else 200)
        if asked and web.ranges:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Connection", "close")
        self.end_headers()
        body = data[start:stop]
        if web.cut_after and len(body) > web.cut_after and web.chance.random() < 0.7:
            web.cuts += 1
            body = body[: web.chance.randrange(web.cut_after, len(body))]
        web.sent += len(body)
        self.wfile.write(body)


@contextmanager
def serve_folder(folder: Path) -> Iterator[Web]:
    """Serve the files of `folder`."""
    web = Web(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"web": web}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
