"""Licences of weights: which are open, and how model cards' own words for them are read.

Open is what the Open Source Initiative or the Open Knowledge Foundation approves, by SPDX identifier. Anything else
needs the user's word (`--accept-licence`) before it is downloaded or built: its terms reach into what may be done with
the model, and nobody but the user can accept them.
"""

from __future__ import annotations

import difflib

UNKNOWN = "LicenseRef-unknown"
REFERENCE = "LicenseRef-"  # SPDX's prefix of what is not in its list

OPEN = frozenset(
    {
        "0BSD",
        "AFL-3.0",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-2.0",
        "Artistic-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "ECL-2.0",
        "EPL-2.0",
        "EUPL-1.2",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "MS-PL",
        "MulanPSL-2.0",
        "NCSA",
        "ODbL-1.0",
        "ODC-By-1.0",
        "OSL-3.0",
        "PDDL-1.0",
        "PostgreSQL",
        "UPL-1.0",
        "Unlicense",
        "Zlib",
    }
)
# In SPDX's list, but not open: no commercial use, no changes, or limits on what the model may be used for.
RESTRICTED = frozenset(
    {
        "CC-BY-NC-3.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-3.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
    }
)
# Model cards' words that are not SPDX's.
CARD_WORDS = {
    "agpl-3.0": "AGPL-3.0-only",
    "apache2.0": "Apache-2.0",
    "apache-license-2.0": "Apache-2.0",
    "apache-license-version-2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "cc": UNKNOWN,
    "gpl": "GPL-3.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "lgpl-3.0": "LGPL-3.0-only",
    "mit-license": "MIT",
    "odc-by": "ODC-By-1.0",
    "other": UNKNOWN,
    "unknown": UNKNOWN,
}


def canonical(stated: str | None) -> str:
    """A licence as SPDX writes it: its identifier, or "LicenseRef-..." for one that SPDX does not have."""
    if not stated or not stated.strip():
        return UNKNOWN
    word = stated.strip()
    known = {name.lower(): name for name in (*OPEN, *RESTRICTED)} | CARD_WORDS
    if word.lower() in known:
        return known[word.lower()]
    if word.startswith(REFERENCE):
        return word
    plain = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in word)
    return f"{REFERENCE}{plain}"


def is_open(spdx: str) -> bool:
    """Whether everyone may use, change and pass on what is under this licence; of "A AND B" both, of "A OR B" one."""
    if " AND " in spdx:
        return all(is_open(part) for part in spdx.split(" AND "))
    if " OR " in spdx:
        return any(is_open(part) for part in spdx.split(" OR "))
    return spdx.strip("() ") in OPEN


def is_known(spdx: str) -> bool:
    """Whether SPDX's list has it, as far as edgeai knows that, or it is marked as one that the list does not have."""
    parts = spdx.replace(" OR ", " AND ").split(" AND ")
    return all(part in OPEN | RESTRICTED or part.startswith(REFERENCE) for part in parts)


def nearest(spdx: str) -> list[str]:
    """Identifiers that may be meant."""
    names = {name.lower(): name for name in (*OPEN, *RESTRICTED)}
    return [names[name] for name in difflib.get_close_matches(spdx.lower(), names, n=3)]
