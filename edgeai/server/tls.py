"""TLS by the owner's certificate, or by one that the server makes for itself, keeps, and renews in time."""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput

log = logging.getLogger("edgeai.server")

FOLDER = "tls"
CERTIFICATE, PRIVATE_KEY = "certificate.pem", "private-key.pem"
ACME_HINT = "give both as PEM files, the certificate with its chain"


class Tls:
    """The context of all connections, whose certificate may be replaced while the server runs."""

    def __init__(self, certificate: Path, key: Path, renew: Callable[[], float] | None = None) -> None:
        """`renew` makes the files new if it is time, and says until when they need not be looked at (Unix seconds).

        Raises `InvalidInput` for files that are not a certificate and its key.
        """
        self.certificate = certificate
        self._key = key
        self._renew = renew
        self._look_at = renew() if renew else float("inf")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load()
        if renew:
            self.context.sni_callback = self._greeted

    def load(self) -> None:
        """Use the files as they are now, from the next connection on. Raises `InvalidInput`."""
        try:
            self.context.load_cert_chain(self.certificate, self._key, password="")
        except (OSError, ssl.SSLError) as error:
            what = f"cannot use {self.certificate} with {self._key}: {error.strerror or error}"
            raise InvalidInput(what, ACME_HINT, param="tls_cert") from error

    def follow(self, _settings: ServerSettings) -> None:
        """The configuration was read again: certificates that others renew are, too."""
        try:
            self.load()
        except InvalidInput as error:
            log.error("the certificate stays as it was: %s", error)

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it."""
        first = self.certificate.read_text(encoding="ascii").split("-----END CERTIFICATE-----")[0]
        der = ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n")
        return ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())

    def _greeted(self, *_greeting: object) -> None:
        """A client says hello: the only moment at which an old certificate matters, so nothing need wake for it."""
        if self._renew is None or time.time() < self._look_at:
            return
        self._look_at = self._renew()
        self.load()


def open_tls(settings: ServerSettings, address: str, home: Path) -> Tls | None:
    """What the settings want; None for plain HTTP. Raises `InvalidInput`."""
    if settings.tls_cert is not None or settings.tls_key is not None:
        if settings.tls_cert is None or settings.tls_key is None:
            raise InvalidInput("a certificate needs its key, and a key its certificate", ACME_HINT, param="tls_cert")
        return Tls(Path(settings.tls_cert).expanduser(), Path(settings.tls_key).expanduser())
    if settings.tls == "off":
        return None
    from edgeai.server.self_signed import SelfSigned

    folder = home / FOLDER
    own = SelfSigned(folder / CERTIFICATE, folder / PRIVATE_KEY, address, settings.hostname, settings.name)
    return Tls(own.certificate, own.key, own.renew)
