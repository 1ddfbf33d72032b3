"""Licence texts that go into a package's LICENSE file."""

from __future__ import annotations

from pathlib import Path

from edgeai.errors import NotFound
from edgeai.recipe import Licence

_FOLDER = Path(__file__).parent / "licences"


def known_licences() -> list[str]:
    """SPDX identifiers whose text comes with edgeai."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def licence_text(spdx: str) -> str:
    """The text of a licence by its SPDX identifier, in any case. Raises `NotFound` for one that is not here."""
    for name in known_licences():
        if name.lower() == spdx.lower():
            return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    raise NotFound(f"no text of licence {spdx!r}", f"there are: {', '.join(known_licences())}")


def licence_notice(licence: Licence) -> str:
    """What a package's LICENSE says: the licence's text, or where it is to be found when the text is not here."""
    try:
        return licence_text(licence.spdx)
    except NotFound:
        where = f"Its text: {licence.url}\n" if licence.url else "The publisher of the weights has its text.\n"
        note = f"\n{licence.note}\n" if licence.note else ""
        return f"The weights in this package are licensed under: {licence.spdx}\n{where}{note}"
