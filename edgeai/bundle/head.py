"""The head of a bundle: manifest and signatures, and where each chunk is behind them."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from edgeai.bundle.manifest import LARGEST_MANIFEST, Chunk, Manifest, manifest_bytes, parse_manifest
from edgeai.errors import BundleError

if TYPE_CHECKING:  # a server that starts has no use for it yet
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAGIC = b"EDGEAIB1"
CONTEXT = b"edgeai bundle 1\n"  # so that a signature of this key over something else is none of a bundle
MOST_SIGNATURES = 8
_LENGTHS = struct.Struct("<8sII")
_SIGNATURE = struct.Struct("<32s64s")
AGAIN = "fetch or export it again"

ReadExactly = Callable[[int, int], bytes]  # offset and size to that many bytes


@dataclass(frozen=True)
class Head:
    """A manifest and who signed it: the raw public keys of signatures that are right."""

    manifest: Manifest
    signers: tuple[bytes, ...]
    data: bytes  # as it stands in the bundle

    @classmethod
    def sign(cls, manifest: Manifest, keys: Sequence[Ed25519PrivateKey]) -> Self:
        """The head of a new bundle."""
        body = manifest_bytes(manifest)
        signed = [(key.public_key().public_bytes_raw(), key.sign(CONTEXT + body)) for key in keys]
        lengths = _LENGTHS.pack(MAGIC, len(body), len(keys))
        data = b"".join([lengths, *(_SIGNATURE.pack(*pair) for pair in signed), body])
        return cls(manifest, tuple(public for public, _ in signed), data)

    @classmethod
    def read(cls, read: ReadExactly) -> Self:
        """Raises `BundleError` for what is no bundle, or has a signature that is wrong; the signers may be unknown."""
        magic, length, count = _LENGTHS.unpack(read(0, _LENGTHS.size))
        if magic != MAGIC:
            raise BundleError("this is not a bundle", "`edgeai export` makes one")
        if length > LARGEST_MANIFEST or count > MOST_SIGNATURES:
            raise BundleError(f"the bundle claims a manifest of {length} bytes and {count} signatures", AGAIN)
        rest = read(_LENGTHS.size, count * _SIGNATURE.size + length)
        body = rest[count * _SIGNATURE.size :]
        signatures = list(_SIGNATURE.iter_unpack(rest[: count * _SIGNATURE.size]))
        for public, signature in signatures:
            _check(public, signature, body)
        data = _LENGTHS.pack(magic, length, count) + rest
        return cls(parse_manifest(body), tuple(public for public, _ in signatures), data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """A head that was kept. Raises `BundleError`."""
        return cls.read(lambda start, size: exactly(data[start : start + size], size))

    @functools.cached_property
    def digest(self) -> str:
        """The identity of what is in the bundle: sha256 of its manifest, whoever signed it."""
        return hashlib.sha256(manifest_bytes(self.manifest)).hexdigest()

    @functools.cached_property
    def offsets(self) -> dict[Chunk, int]:
        """Where each chunk begins, in bytes from the beginning of the bundle; in their order."""
        found: dict[Chunk, int] = {}
        at = len(self.data)
        for record in self.manifest.files.values():
            for chunk in record.each_chunk():
                if chunk not in found:
                    found[chunk] = at
                    at += chunk.size
        return found

    @property
    def size_bytes(self) -> int:
        """Of the whole bundle."""
        return len(self.data) + sum(chunk.size for chunk in self.offsets)


def exactly(data: bytes, size: int) -> bytes:
    """Raises `BundleError` for data that ended early."""
    if len(data) != size:
        raise BundleError("the bundle is cut off", AGAIN)
    return data


def _check(public: bytes, signature: bytes, body: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, CONTEXT + body)
    except (InvalidSignature, ValueError):
        raise BundleError("the bundle has a signature that is wrong: it was changed or damaged", AGAIN) from None
