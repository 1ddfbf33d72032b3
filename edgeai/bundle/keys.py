"""Keys of bundles: a private one signs, public ones are trusted, each for what it was let in for.

Both are PEM files (PKCS 8 and SubjectPublicKeyInfo), as OpenSSL makes them too: `openssl genpkey -algorithm ed25519`.
Whose key signs models may not replace the system: those keys are in folders of their own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgeai.bundle.head import Head
from edgeai.bundle.manifest import Kind
from edgeai.errors import InvalidInput, NotFound, Untrusted
from edgeai.package import durable
from edgeai.recipe import NAME_PATTERN

IMAGE_FOLDER = Path("/usr/share/edgeai/keys")  # of whoever made the system: read-only
BOARD_FOLDER = Path("/data/keys")  # on a board that was flashed, for its administrator alone
HOME_FOLDER = "trusted"  # elsewhere, in the folder of everything installed
SYSTEM_FOLDER = "system"  # inside of these: keys that systems may be signed by as well
SUFFIX = ".pub"
_LARGEST_FILE = 1 << 16

log = logging.getLogger("edgeai.bundle")


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, by the name of its file, and the kinds of bundle that it may sign."""

    name: str
    public: bytes
    kinds: tuple[Kind, ...]
    path: Path

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return fingerprint(self.public)


@dataclass(frozen=True)
class TrustStore:
    """The keys that are trusted here: those of `image`, and those that `own` was given."""

    own: Path
    image: Path = IMAGE_FOLDER

    @classmethod
    def of(cls, home: Path) -> TrustStore:
        """A flashed board's keys belong to its administrator, and not to the server's user, who owns `home`."""
        flashed = BOARD_FOLDER.is_dir() or IMAGE_FOLDER.is_dir()
        return cls(BOARD_FOLDER if flashed else home / HOME_FOLDER)

    def all(self) -> tuple[TrustedKey, ...]:
        """A file that is no key is told in the log, and lets nobody in."""
        return tuple(self._all())

    def add(self, file: Path, name: str | None = None, *, system: bool = False) -> TrustedKey:
        """Trust the key in `file`; `system`: with the whole board. Raises `InvalidInput`."""
        public = load_public_key(file)
        chosen = name or re.sub(r"[^a-z0-9._-]", "-", file.name.lower().removesuffix(SUFFIX).removesuffix(".pem"))
        if not re.fullmatch(NAME_PATTERN, chosen):
            raise InvalidInput(f"{chosen!r} is no name for a key", "give it one with --name")
        if any(key.name == chosen and key.public != public for key in self.all()):
            raise InvalidInput(f"another key is called {chosen!r}", "give this one another with --name")
        folder = self.own / SYSTEM_FOLDER if system else self.own
        folder.mkdir(parents=True, exist_ok=True)
        durable.write_file(folder / f"{chosen}{SUFFIX}", public_pem(public))
        return next(key for key in self.all() if key.path == folder / f"{chosen}{SUFFIX}")

    def remove(self, name: str) -> tuple[TrustedKey, ...]:
        """Trust a key no more, for nothing. Raises `NotFound`, and `InvalidInput` for one of the image."""
        found = tuple(key for key in self.all() if name in (key.name, key.fingerprint))
        if not found:
            there = ", ".join(sorted({key.name for key in self.all()})) or "none"
            raise NotFound(f"no trusted key is called {name!r}", f"there is {there}", param="key")
        if any(self.image in key.path.parents for key in found):
            raise InvalidInput(f"{name} came with the system and cannot be removed", "update the system")
        for key in found:
            key.path.unlink()
            durable.sync_folder(key.path.parent)
        return found

    def check(self, head: Head) -> TrustedKey:
        """The trusted key that signed a bundle. Raises `Untrusted`."""
        kind = head.manifest.kind
        signed = [key for key in self.all() if key.public in head.signers]
        for key in signed:
            if kind in key.kinds:
                return key
        if signed:
            raise Untrusted(
                f"the key {signed[0].name!r} is trusted for models, and this is a {kind}",
                "`edgeai trust add --system FILE` trusts it with the whole board",
            )
        if not head.signers:
            raise Untrusted("nobody has signed this bundle", "`edgeai export --sign-with KEY` does")
        names = ", ".join(fingerprint(public) for public in head.signers)
        raise Untrusted(f"the bundle is signed by a key that is not trusted here: {names}", "`edgeai trust add FILE`")

    def _all(self) -> Iterator[TrustedKey]:
        models: tuple[Kind, ...] = ("model",)
        everything: tuple[Kind, ...] = ("model", "system")
        for folder, kinds in (
            (self.image, everything),
            (self.own / SYSTEM_FOLDER, everything),
            (self.own, models),
        ):
            for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
                try:
                    public = load_public_key(path)
                except InvalidInput as error:  # the others are trusted as before
                    log.warning("%s; it is left out", error)
                    continue
                yield TrustedKey(path.name.removesuffix(SUFFIX), public, kinds, path)


def make_key_pair(private: Path) -> tuple[Path, str]:
    """A new key in `private`, for its owner alone, and its public half beside it: that file, and the fingerprint.

    Raises `InvalidInput` rather than replacing a key.
    """
    public_path = private.with_name(private.name.removesuffix(".pem") + SUFFIX)
    for path in (private, public_path):
        if path.exists():
            raise InvalidInput(f"{path} is there already", "choose another name; a lost key cannot be made again")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes_raw()
    private.parent.mkdir(parents=True, exist_ok=True)
    durable.write_file(private, pem, mode=0o600)
    durable.write_file(public_path, public_pem(public))
    return public_path, fingerprint(public)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Raises `InvalidInput` for a file that is no private key, or that others can read."""
    data = _read(path)
    if path.stat().st_mode & 0o077 and os.name == "posix":
        raise InvalidInput(f"others can read the private key {path}", f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path} is no private key", "`edgeai trust make-key` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is not an Ed25519 key", "`edgeai trust make-key` makes one")
    return key


def load_public_key(path: Path) -> bytes:
    """The 32 bytes of a public key. Raises `InvalidInput`."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path} is no public key", "it is the file that ends in .pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(f"{path} is not an Ed25519 key", "`edgeai trust make-key` makes one")
    return key.public_bytes_raw()


def fingerprint(public: bytes) -> str:
    """The beginning of the key's sha256, in groups that people can read out: 64 bits."""
    digest = hashlib.sha256(public).hexdigest()
    return "-".join(digest[at : at + 4] for at in range(0, 16, 4))


def public_pem(public: bytes) -> bytes:
    """The file of a public key, from its 32 bytes."""
    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError as error:
        raise InvalidInput(f"cannot read the key {path}: {error.strerror}") from error
