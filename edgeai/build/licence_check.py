"""Whether weights may be used: open licences always, others when the user accepts them."""

from __future__ import annotations

from edgeai import licences
from edgeai.errors import LicenceNotAccepted
from edgeai.package.licence import require_accepted as licence_accepted
from edgeai.recipe import Licence, find_recipe, recipe_names

OF_A_HUB = frozenset({"hub", "modelscope"})


def stated_licence(words: str | None) -> Licence:
    """What a source says about its licence, with the link and note of a shipped recipe under the same one."""
    spdx = licences.canonical(words)
    if not licences.is_open(spdx) and spdx != licences.UNKNOWN:
        for name in recipe_names():
            known = find_recipe(name).licence
            if known is not None and known.spdx.lower() == spdx.lower():
                return known
    return Licence(spdx=spdx)


def require_accepted(licence: Licence, accepted: bool, what: str, *, kind: str) -> bool:
    """Whether the licence had to be accepted. Raises `LicenceNotAccepted` with its note and link where it was not.

    Weights that say nothing are their owner's business where they lie on this machine; on a hub nobody may use them
    unless the page says more, which the user has to have read.
    """
    if licence.spdx != licences.UNKNOWN or kind not in OF_A_HUB:
        return licence_accepted(licence, accepted, what)
    if not accepted:
        raise LicenceNotAccepted(
            f"{what} does not state a licence that edgeai knows",
            "read the model's page, then use --accept-licence if its terms allow what you want to do",
        )
    return True


def contradiction(recipe: Licence, words: str | None, what: str) -> str | None:
    """A sentence where the source states another licence than the recipe; None where they agree or it says nothing."""
    stated = licences.canonical(words)
    if stated == licences.UNKNOWN or stated.lower() == recipe.spdx.lower():
        return None
    return f"licence: {what} states {stated}, the recipe says {recipe.spdx}"
