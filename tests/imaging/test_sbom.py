"""The bill of materials: SPDX 2.3."""

from __future__ import annotations

import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from edgeai.imaging.plan import make_plan
from edgeai.imaging.sbom import (
    NO_ASSERTION,
    debian_components,
    debian_licence,
    document,
    model_component,
    own_component,
    wheel_components,
    wheel_licence,
)
from edgeai.package.package import Package
from tests.fixtures.images import COPYRIGHT, IMAGES, small_root

PLAN = make_plan(IMAGES, "pi4")
DIGEST = "a" * 64


def test_installed_packages_are_listed_with_their_licences() -> None:
    one, other = debian_components(small_root(PLAN), "trixie")
    assert (one.name, one.version) == ("systemd", "257.13-1")
    assert one.licence == "CC0-1.0 AND LGPL-2.1-or-later AND LicenseRef-Debian-Odd"
    assert one.purl == "pkg:deb/debian/systemd@257.13-1?arch=arm64&distro=trixie"
    assert (other.name, other.licence) == ("wireless-regdb", NO_ASSERTION)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("Expat", "MIT"),
        ("GPL-2+ with OpenSSL-exception", "GPL-2.0-or-later"),
        ("BSD-3-clause, GPL-3 or MIT", "BSD-3-Clause AND GPL-3.0-only AND MIT"),
        ("my-own+", "LicenseRef-Debian-my-own-or-later"),
    ],
)
def test_debians_names_become_spdx(named: str, expected: str) -> None:
    assert debian_licence(COPYRIGHT.format(named)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("License: Apache License 2.0", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD-3-Clause"),
        ("License: whatever", NO_ASSERTION),
    ],
)
def test_wheels_say_their_licence_in_many_ways(fields: str, expected: str) -> None:
    assert wheel_licence(HeaderParser().parsestr(fields)) == expected


def test_a_document_is_whole(tmp_path: Path, tiny_package: Package) -> None:
    with zipfile.ZipFile(tmp_path / "toy-1-py3-none-any.whl", "w") as archive:
        archive.writestr("toy-1.dist-info/METADATA", "Name: toy\nVersion: 1\nLicense-Expression: MIT\n")
    components = [
        *debian_components(small_root(PLAN), "trixie"),
        *wheel_components(tmp_path),
        model_component(tiny_package),
        own_component(),
    ]
    spdx = document(PLAN, "1.2", components, DIGEST)
    assert (spdx["spdxVersion"], spdx["dataLicense"], spdx["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    assert spdx["creationInfo"]["created"] == "2026-11-30T00:00:00Z"
    ids = [one["SPDXID"] for one in spdx["packages"]]
    assert len(ids) == len(set(ids)) == len(components) + 1
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", one) for one in ids)
    ends = {(one["relationshipType"], one["relatedSpdxElement"]) for one in spdx["relationships"]}
    assert ends == {("DESCRIBES", "SPDXRef-image")} | {("CONTAINS", one) for one in ids[1:]}
    used = set(re.findall(r"LicenseRef-[\w.-]+", str([one["licenseDeclared"] for one in spdx["packages"]])))
    assert used == {one["licenseId"] for one in spdx["hasExtractedLicensingInfos"]}
    assert document(PLAN, "1.2", components[::-1], DIGEST)["packages"] == spdx["packages"]
