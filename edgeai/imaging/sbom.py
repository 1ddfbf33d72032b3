"""The bill of materials: SPDX 2.3 as JSON, of Debian's packages, wheels and models, with licences and digests.

Format: https://spdx.github.io/spdx-spec/v2.3/. Licences of Debian's packages come from their copyright files, where
those are written for machines (DEP-5); Debian's short names that SPDX does not have become LicenseRef-Debian-NAME.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import edgeai
from edgeai.imaging.plan import Plan
from edgeai.imaging.tree import Tree
from edgeai.licences import OPEN
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package, file_digest

NO_ASSERTION = "NOASSERTION"
_DEBIAN_NAMES = {
    "expat": "MIT",
    "gpl-1": "GPL-1.0-only",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2.0+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "gpl-3.0": "GPL-3.0-only",
    "gpl-3.0+": "GPL-3.0-or-later",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.0+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "lgpl-3.0+": "LGPL-3.0-or-later",
    "gfdl-1.2+": "GFDL-1.2-or-later",
    "gfdl-1.3+": "GFDL-1.3-or-later",
    "apache-2": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "bsl-1": "BSL-1.0",
    "fsfap": "FSFAP",
    "fsful": "FSFUL",
    "fsfullr": "FSFULLR",
    "mpl-1.1": "MPL-1.1",
    "sleepycat": "Sleepycat",
    "unicode-dfs-2016": "Unicode-DFS-2016",
    "x11": "X11",
    "cc0": "CC0-1.0",
    "zlib": "Zlib",
    "isc": "ISC",
    "mit": "MIT",
}
_KNOWN = {name.lower(): name for name in OPEN} | _DEBIAN_NAMES
_LICENCE_LINE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
_EXPRESSION_WORDS = re.compile(r"[\s,()]+|\b(?:and|or|with)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Component:
    """Something that is in an image."""

    kind: str  # deb, pypi or model: part of its id
    name: str
    version: str
    licence: str  # an SPDX expression, or NOASSERTION
    purl: str = ""
    supplier: str = NO_ASSERTION
    homepage: str = ""
    sha256: str = ""
    comment: str = ""

    @property
    def id(self) -> str:
        """SPDX's identifier: letters, digits, dots and dashes."""
        return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{self.kind}-{self.name}-{self.version}")


def document(plan: Plan, version: str, components: Sequence[Component], image_digest: str) -> dict[str, Any]:
    """The SPDX document of an image."""
    name = f"{plan.name}-{version}"
    described = [_package(one) for one in sorted(components, key=lambda one: one.id)]
    image: dict[str, Any] = {
        "SPDXID": "SPDXRef-image",
        "name": plan.name,
        "versionInfo": version,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": False,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image_digest}],
    }
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    relations += [_relation("SPDXRef-image", "CONTAINS", one["SPDXID"]) for one in described]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://edgeai.invalid/spdx/{name}-{image_digest}",
        "creationInfo": {
            "created": f"{plan.base.date.isoformat()}T00:00:00Z",
            "creators": [f"Tool: edgeai-{edgeai.__version__}"],
        },
        "packages": [image, *described],
        "hasExtractedLicensingInfos": list(_own_licences(components)),
        "relationships": relations,
    }


def debian_components(tree: Tree, suite: str) -> list[Component]:
    """Debian's packages of a root, from dpkg's own list."""
    found = []
    for paragraph in tree.entries["var/lib/dpkg/status"].read().decode().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Package"] and "installed" in (fields["Status"] or "").split():
            found.append(debian_component(fields, tree, suite))
    return found


def debian_component(fields: Any, tree: Tree, suite: str) -> Component:
    """One package by its control fields; its copyright file is looked for in `tree`."""
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    entry = tree.entries.get(f"usr/share/doc/{name}/copyright")
    licence = debian_licence(entry.read().decode(errors="replace")) if entry and entry.info.isreg() else NO_ASSERTION
    return Component(
        kind="deb",
        name=name,
        version=version,
        licence=licence,
        purl=_debian_purl(name, version, architecture, suite),
        supplier=f"Organization: {fields['Maintainer']}" if fields["Maintainer"] else NO_ASSERTION,
        homepage=fields["Homepage"] or "",
        comment=f"licences: /usr/share/doc/{name}/copyright",
    )


def unpacked_components(packages: Path, root: Path, names: Collection[str], suite: str) -> list[Component]:
    """Packages that were unpacked without being installed: of those in the list `packages`, the ones of these names."""
    found = []
    for line in packages.read_text(encoding="ascii").splitlines():
        name, version, architecture = line.split()
        if name in names:
            copyright_file = root / "usr" / "share" / "doc" / name / "copyright"
            licence = debian_licence(copyright_file.read_text(encoding="utf-8", errors="replace"))
            purl = _debian_purl(name, version, architecture, suite)
            found.append(Component("deb", name, version, licence, purl, comment="on the boot partition"))
    return found


def _debian_purl(name: str, version: str, architecture: str, suite: str) -> str:
    return f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro={suite}"


def debian_licence(copyright_file: str) -> str:
    """All licences that a copyright file names, as one expression; NOASSERTION where it is not written for machines."""
    names = {
        word
        for line in _LICENCE_LINE.findall(copyright_file)
        for word in _EXPRESSION_WORDS.split(line)
        if word and not word.endswith("exception") and re.fullmatch(r"[A-Za-z][A-Za-z0-9.+-]*", word)
    }
    if not copyright_file.startswith("Format") or not names:
        return NO_ASSERTION
    return " AND ".join(sorted({_spdx_name(name) for name in names}))


def wheel_components(folder: Path) -> list[Component]:
    """The wheels in a folder."""
    return [_wheel(path) for path in sorted(folder.glob("*.whl"))]


def model_component(package: Package) -> Component:
    """A model: its weights' licence, and the digest of the manifest, which has those of all its files."""
    return Component(
        kind="model",
        name=package.name,
        version=package.manifest.target,
        licence=package.manifest.licence.spdx,
        homepage=package.manifest.licence.url,
        sha256=file_digest(package.path / MANIFEST_NAME),
        comment=package.manifest.description,
    )


def own_component() -> Component:
    """What edgeai itself is."""
    return Component("pypi", "edgeai", edgeai.__version__, "Apache-2.0", f"pkg:pypi/edgeai@{edgeai.__version__}")


def _wheel(path: Path) -> Component:
    with zipfile.ZipFile(path) as archive:
        [metadata] = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        fields = HeaderParser().parsestr(archive.read(metadata).decode())
    name, version = fields["Name"], fields["Version"]
    return Component(
        kind="pypi",
        name=name,
        version=version,
        licence=wheel_licence(fields),
        purl=f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}",
        homepage=fields["Home-page"] or "",
        sha256=file_digest(path),
        comment=" ".join((fields["License"] or "").split())[:200],
    )


def wheel_licence(fields: Any) -> str:
    """The SPDX expression of a wheel: its own, or what its classifiers or its word for it say."""
    if fields["License-Expression"]:
        return str(fields["License-Expression"])
    stated = (fields["License"] or "").strip()
    words = [one.rpartition(" :: ")[2] for one in fields.get_all("Classifier", []) if one.startswith("License ::")]
    for word in (stated, *words):
        if name := _WHEEL_WORDS.get(word.lower()):
            return name
    return NO_ASSERTION


_WHEEL_WORDS = {
    **{name.lower(): name for name in OPEN},
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "bsd": "BSD-3-Clause",
    "mit license": "MIT",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


def _spdx_name(debian: str) -> str:
    debian = debian.rstrip("-")
    known = _KNOWN.get(debian.lower())
    return known or "LicenseRef-Debian-" + re.sub(r"[^A-Za-z0-9.-]", "-", debian.replace("+", "-or-later"))


def _package(one: Component) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "SPDXID": one.id,
        "name": one.name,
        "versionInfo": one.version,
        "supplier": one.supplier,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": False,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": one.licence,
        "copyrightText": NO_ASSERTION,
    }
    if one.homepage:
        entry["homepage"] = one.homepage
    if one.comment:
        entry["comment"] = one.comment
    if one.sha256:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": one.sha256}]
    if one.purl:
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.purl}
        entry["externalRefs"] = [reference]
    return entry


def _own_licences(components: Iterable[Component]) -> Iterator[dict[str, str]]:
    names = {name for one in components for name in re.findall(r"LicenseRef-[A-Za-z0-9.-]+", one.licence)}
    for name in sorted(names):
        users = sorted({one.name for one in components if name in one.licence.split()})
        text = f"Texts are in the image: /usr/share/doc/NAME/copyright, NAME being {', '.join(users)}"
        yield {"licenseId": name, "name": name.removeprefix("LicenseRef-"), "extractedText": text}


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
