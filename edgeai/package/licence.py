"""Licences of packages: the texts that go into LICENSE, and terms that the user has to accept first."""

from __future__ import annotations

from pathlib import Path

from edgeai import licences
from edgeai.errors import LicenceNotAccepted, NotFound
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


def require_accepted(licence: Licence, accepted: bool, what: str) -> bool:
    """Whether the licence had to be accepted. Raises `LicenceNotAccepted` with its note and link where it was not.

    What says nothing of a licence and is at hand is the business of whoever has it.
    """
    if licences.is_open(licence.spdx) or licence.spdx == licences.UNKNOWN:
        return False
    if accepted:
        return True
    where = f"; its text: {licence.url}" if licence.url else "; its text is on the model's page"
    note = f". {licence.note}" if licence.note else ""
    raise LicenceNotAccepted(
        f"{what} is under {licence.spdx}, which is not an open licence{note}",
        f"read it, then use --accept-licence{where}",
    )
