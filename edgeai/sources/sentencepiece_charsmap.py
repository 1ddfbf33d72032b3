"""The precompiled table of a SentencePiece normalizer: which characters become which.

Layout (normalizer.cc): the size of a double array in bytes (u32), the double array (Darts-clone, u32 units) over the
UTF-8 of what is replaced, and the replacements, each ended by a zero byte. A leaf holds the place of its replacement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import SourceError

LEAF = 1 << 31


def check_charsmap(charsmap: bytes, name: str) -> None:
    """Raise `SourceError` for a table that leads out of itself: the library would not survive it."""
    units, strings = _parts(charsmap)
    if not len(units) or not strings.endswith(b"\0") or not _is_text(strings) or not _stays_inside(units, strings):
        raise SourceError(
            f"{name}: the precompiled table of the tokenizer's normalizer is damaged",
            "the file was converted incompletely; convert it again or use another one",
        )


def _stays_inside(units: NDArray[np.int64], strings: bytes) -> bool:
    """Whether every step of a look-up ends at a unit, and every replacement begins at a character."""
    nodes = np.flatnonzero(units & LEAF == 0)
    if units[0] & LEAF:
        nodes = np.append(nodes, 0)  # a look-up starts there, whatever it says of itself
    below = nodes ^ _offsets(units[nodes])
    if int((below | 255).max()) >= len(units):
        return False
    ends = below[units[nodes] >> 8 & 1 != 0]  # where the replacement's place is read, whatever stands there
    places = np.concatenate([units[units & LEAF != 0], units[ends]]) & (LEAF - 1)
    if int(places.max(initial=0)) >= len(strings):
        return False
    return bool((np.frombuffer(strings, np.uint8)[places] & 0xC0 != 0x80).all())


def composes(charsmap: bytes) -> bool:
    """Whether the table makes one character of a letter and its accents, as those after NFKC do."""
    return replacement(charsmap, "e\u0301".encode()) == "\u00e9".encode()


def replacement(charsmap: bytes, text: bytes) -> bytes | None:
    """What the table has for exactly this text; None where it has nothing."""
    units, strings = _parts(charsmap)
    offsets = _offsets(units)
    at = 0
    for byte in text:
        at ^= int(offsets[at]) ^ byte if at < len(units) else at
        if at >= len(units) or units[at] & (LEAF | 255) != byte:
            return None
    leaf = at ^ int(offsets[at]) if at < len(units) else at
    if leaf >= len(units) or not units[at] >> 8 & 1:
        return None
    start = int(units[leaf]) & (LEAF - 1)
    return strings[start : strings.find(b"\0", start)]


def _parts(charsmap: bytes) -> tuple[NDArray[np.int64], bytes]:
    """Units of the double array, and the replacements; nothing of a table whose size cannot be true."""
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or 4 + size > len(charsmap):
        return np.zeros(0, np.int64), b""
    return np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64), charsmap[4 + size :]


def _offsets(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """The offset field of each unit: what the place of a node is combined with to find those below it."""
    offsets: NDArray[np.int64] = ((units & 0xFFFFFFFF) >> 10) << ((units & 0x200) >> 6)
    return offsets


def _is_text(strings: bytes) -> bool:
    try:
        strings.decode()
    except UnicodeDecodeError:
        return False
    return True
