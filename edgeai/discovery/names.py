"""What a board is called on the network."""

from __future__ import annotations

import re

LABEL = 63  # bytes of one label of a DNS name


def host_label(name: str) -> str:
    """`name` as one label of a host name (RFC 1123): "Clinic No. 2" becomes "clinic-no-2"."""
    label = re.sub(r"[^a-z0-9]+", "-", name.partition(".local")[0].lower()).strip("-")
    return label[:LABEL].rstrip("-") or "edgeai"
