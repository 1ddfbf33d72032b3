"""A certificate that the server signs itself: for its names and addresses, kept, and made anew before it expires.

It keeps wires and radio from being read. That it is the right server a client knows only by the fingerprint. A new one
is made with the old private key, so that whoever pinned that need not be told.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeai.errors import StateDamaged
from edgeai.package.durable import write_file
from edgeai.server.browsers import own_names
from edgeai.server.listening import is_loopback

VALID_DAYS = 800  # some systems refuse certificates for more than 825
RENEW_DAYS = 60  # before the end
DAY = 86_400.0
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """The files of one server that listens on the numeric `address`.

    `names` are further ones that it is called by, `board` is the one that it is announced by.
    """

    certificate: Path
    key: Path
    address: str
    names: tuple[str, ...] = ()
    board: str | None = None

    def renew(self) -> float:
        """Make a certificate if there is none, if it ends soon, or if a name is missing. When to look again.

        Raises `StateDamaged` for files that cannot be read as what they are.
        """
        now, wanted = trusted_now(), subjects(self.address, self.names, self.board)
        current = self._current()
        if current is None or _ends(current) - now < RENEW_DAYS * DAY or not wanted <= _subjects_of(current):
            self.certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            current = make_certificate(self._private_key(), wanted, now)
            write_file(self.certificate, current.public_bytes(serialization.Encoding.PEM))
        return min(_ends(current) - RENEW_DAYS * DAY, now + DAY)

    def _current(self) -> x509.Certificate | None:
        if not self.certificate.exists() or not self.key.exists():
            return None
        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except ValueError as error:
            raise _damaged(self.certificate) from error

    def _private_key(self) -> ec.EllipticCurvePrivateKey:
        if self.key.exists():
            try:
                key = serialization.load_pem_private_key(self.key.read_bytes(), None)
            except ValueError as error:
                raise _damaged(self.key) from error
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
            raise _damaged(self.key)
        made = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_file(self.key, made.private_bytes(*form), mode=0o600)
        return made


def make_certificate(key: ec.EllipticCurvePrivateKey, wanted: Iterable[str], now: float) -> x509.Certificate:
    """A certificate for these names and addresses, valid from yesterday on."""
    start = datetime.datetime.fromtimestamp(now - DAY, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in sorted(wanted)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def subjects(address: str, names: Iterable[str] = (), board: str | None = None) -> set[str]:
    """What clients may call the server: names, and its addresses; of IPv6 only one that was chosen, for others pass."""
    found = {"localhost", "127.0.0.1", "::1", *(name.lower() for name in names)}
    if is_loopback(address):
        return found
    found |= own_names(board)
    if address not in EVERYWHERE:
        return found | {address.partition("%")[0]}
    interfaces = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    return found | {each.address for each in interfaces if each.family == socket.AF_INET}


def trusted_now() -> float:
    """The time, but never before this file was written: boards without a clock start in the past."""
    return max(time.time(), Path(__file__).stat().st_mtime)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _subjects_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def _ends(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _damaged(path: Path) -> StateDamaged:
    return StateDamaged(f"{path} is damaged", "remove the folder that it is in; a new certificate is made then")
