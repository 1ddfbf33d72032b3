"""What the server logs, and where to: lines on standard error, which systemd's journal keeps."""

from __future__ import annotations

import logging


def log_to_stderr(level: str) -> None:
    """Let all that is worth `level` ("debug" to "error") be written."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("edgeai", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Change what is worth writing; of the HTTP library's own messages never less than warnings."""
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("edgeai").setLevel(least)
    logging.getLogger("uvicorn.error").setLevel(max(least, logging.WARNING))
