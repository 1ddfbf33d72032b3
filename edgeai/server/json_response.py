"""JSON answers that are made whole, possibly in a thread: vectors take long enough to write to hold up others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def json_response(document: Mapping[str, Any]) -> Response:
    """The answer with this document."""
    body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "backslashreplace"), media_type="application/json")
