"""Model packages on disk: the one thing that the build half and the device half share."""

from edgeai.package.manifest import Manifest
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.package.writer import PackageWriter

__all__ = ["Manifest", "Package", "PackageWriter", "Store"]
