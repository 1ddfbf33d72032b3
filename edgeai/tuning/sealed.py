"""JSON documents that carry a digest of their own, so that one that was changed or damaged is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgeai.package import durable
from edgeai.tuning.knobs import Fields

SEAL = "sha256"


def digest_of(content: Fields) -> str:
    """The SHA-256 of a document, in whatever order it was written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_sealed(path: Path, content: Fields) -> None:
    """Keep a document with its digest, power-safe; folders are made. Raises `OutOfDisk`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = content | {SEAL: digest_of(content)}
    durable.write_file(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def unsealed(document: Fields) -> tuple[Fields, bool]:
    """What a document says without its digest, and whether the digest fits."""
    content = {name: value for name, value in document.items() if name != SEAL}
    return content, document.get(SEAL) == digest_of(content)
