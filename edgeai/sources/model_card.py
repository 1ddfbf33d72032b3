"""What the model card (README.md) of a checkpoint says about its licence, in the YAML between its first `---` lines."""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
MAX_FRONT_MATTER = 64 * 1024  # characters

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def stated_licence(folder: Path) -> str | None:
    """The licence as the card words it, such as "apache-2.0"; of an "other" one its `license_name`, if it has one."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
            matter = _FRONT_MATTER.search(file.read(MAX_FRONT_MATTER))
    except OSError:
        return None  # a model without a card is a model of unknown licence
    if matter is None:
        return None
    licence = _value(matter[1], "license")
    if licence == "other":
        return _value(matter[1], "license_name") or licence
    return licence


def _value(text: str, key: str) -> str | None:
    """A plain scalar of the top level, or the only item of a list under the key."""
    found = re.search(rf"^{key}:[ \t]*(?:\r?\n[ \t]*-[ \t]+)?([^\r\n#]*)", text, re.MULTILINE)
    value = found[1].strip().strip("[]").strip().strip("\"'").strip() if found else ""
    return value or None
