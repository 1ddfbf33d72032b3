"""Progress of what apt and dpkg say."""

from __future__ import annotations

from edgeai.imaging.rootfs import PackageCount

SAID = """I: installing essential packages...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Unpacking libc6 (2.41) ...
Setting up libc6 (2.41) ...
Unpacking bash (5.2) ...
Setting up bash (5.2) ...
Setting up bash (5.2) ...
"""


def test_packages_are_counted_up_to_their_number() -> None:
    told: list[tuple[int, int]] = []
    count = PackageCount(lambda step, done=0, total=0: told.append((done, total)))
    for line in SAID.splitlines(keepends=True):
        count(line)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
