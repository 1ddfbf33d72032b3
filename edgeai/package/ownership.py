"""Whose the files are that root writes into a folder of somebody else: that owner's, who could not change root's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """While it lasts, root acts as the owner of `folder`, with that owner's rights. For anybody else nothing changes.

    Of the whole process: its threads act so too.
    """
    if os.geteuid() != 0 or not folder.is_dir() or (owner := folder.stat()).st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
