"""Sampling under a constraint near the last token that a request may have: only what leaves room for the text's end.

The sampled token is taken unless the text could not be brought to its end behind it. Then it is sampled again without
that token, a few times, and at last the next token of a known way to the end is taken. So a text whose shortest form
fits is complete, and otherwise it is what it would be without.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Tokens

from edgeai.engine.constraint import Constraint, Mask

TRIES = 4  # tokens that are sampled anew before the known way is taken


def choose(draw: Callable[[Mask], int], mask: Mask, constraint: Constraint, said: Tokens[int], left: int) -> int:
    """The next token behind what was committed and `said`, drawn out of `mask`; `left` tokens may be said with it."""
    token = first = draw(mask)
    if constraint.can_end([*said, token], left - 1):
        return token
    way = constraint.way_out(said, left)
    if way is None:
        return first
    mask = mask.copy()
    for _ in range(TRIES):
        mask[token] = False
        if token == way or not mask.any():  # of what is forced a mask has one token; the way may cut it into others
            break
        token = draw(mask)
        if constraint.can_end([*said, token], left - 1):
            return token
    return way
