"""Serves index.html under a policy that lets it run its own script and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

from starlette.responses import HTMLResponse


async def show() -> HTMLResponse:
    """The chat page."""
    html = page()
    return HTMLResponse(html, headers={"content-security-policy": policy(html), "referrer-policy": "no-referrer"})


@functools.cache
def page() -> str:
    """The text of the page."""
    return resources.files(__package__).joinpath("index.html").read_text(encoding="utf-8")


@functools.cache
def policy(html: str) -> str:
    """A Content-Security-Policy that names the page's own script and style by digest and forbids all else."""
    return (
        f"default-src 'none'; script-src {_digest(html, 'script')}; style-src {_digest(html, 'style')}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(html: str, element: str) -> str:
    found = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    content = found[1] if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
