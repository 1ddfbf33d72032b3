"""TLS: a certificate of the server's own making, or of the owner's, over real handshakes."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from edgeai.config import ServerSettings
from edgeai.errors import InvalidInput, StateDamaged
from edgeai.server import self_signed
from edgeai.server.admission import Admission
from edgeai.server.self_signed import DAY, RENEW_DAYS, VALID_DAYS, SelfSigned, make_certificate, subjects
from edgeai.server.tls import Tls, open_tls
from tests.fixtures.patience import PATIENCE, get
from tests.server.scripted import ScriptedModel
from tests.server.serving import Served, serving


def opened(home: Path, **settings: object) -> Tls:
    tls = open_tls(ServerSettings(tls="self-signed", **settings), "127.0.0.1", home)  # type: ignore[arg-type]
    assert tls is not None
    return tls


def presented(served: Served) -> bytes:
    """The certificate that a client is shown, as DER."""
    port = httpx.URL(served.url).port or 0
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def age(own: SelfSigned, days: float) -> None:
    """Put a certificate in place as it would have been made so many days ago."""
    made = make_certificate(own._private_key(), subjects(own.address), time.time() - days * DAY)
    own.certificate.write_bytes(made.public_bytes(self_signed.serialization.Encoding.PEM))


def test_clients_that_trust_the_certificate_are_answered(tmp_path: Path) -> None:
    tls = opened(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tls.certificate))
    with serving(ScriptedModel(), tls=tls) as served:
        for url in (served.url, served.url.replace("127.0.0.1", "localhost")):
            assert get(f"{url}/health", verify=trusting).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            get(served.url)
        shown = presented(served)
        digest = hashlib.sha256(shown).hexdigest().upper()
        assert tls.fingerprint().replace(":", "") == digest
        with pytest.raises(httpx.HTTPError):  # not TLS at all
            get(served.url.replace("https", "http"))
        assert get(f"{served.url}/health", verify=trusting).status_code == 200


def test_old_protocols_are_not_spoken(tmp_path: Path) -> None:
    assert opened(tmp_path).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_is_kept(tmp_path: Path) -> None:
    first = opened(tmp_path).fingerprint()
    assert opened(tmp_path).fingerprint() == first
    assert (tmp_path / "tls" / "private-key.pem").stat().st_mode & 0o777 == 0o600
    assert opened(tmp_path, hostname=("clinic.example",)).fingerprint() != first


def test_what_it_is_for() -> None:
    assert subjects("127.0.0.1", ["Clinic.example"]) == {"localhost", "127.0.0.1", "::1", "clinic.example"}
    mine = socket.gethostname().lower().partition(".")[0]
    assert subjects("0.0.0.0") >= {mine, f"{mine}.local", "127.0.0.1"}
    assert subjects("192.0.2.1") >= {mine, f"{mine}.local", "192.0.2.1"}


def test_it_is_made_anew_before_it_expires_with_the_old_key(tmp_path: Path) -> None:
    own = SelfSigned(tmp_path / "certificate.pem", tmp_path / "private-key.pem", "127.0.0.1")
    look = own.renew()
    assert DAY / 2 < look - time.time() <= DAY + 1
    key = certificate(own.certificate).public_key()
    age(own, VALID_DAYS - RENEW_DAYS + 2)
    old = certificate(own.certificate)
    own.renew()
    new = certificate(own.certificate)
    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert new.public_key() == key
    age(own, VALID_DAYS - RENEW_DAYS - 5)
    kept = certificate(own.certificate)
    own.renew()
    assert certificate(own.certificate) == kept


def test_a_running_server_renews_by_itself(tmp_path: Path) -> None:
    own = SelfSigned(tmp_path / "certificate.pem", tmp_path / "private-key.pem", "127.0.0.1")
    own.renew()
    tls = Tls(own.certificate, own.key, own.renew)
    with serving(ScriptedModel(), tls=tls) as served:
        before = presented(served)
        assert presented(served) == before
        age(own, VALID_DAYS)  # as if it had run for years
        tls._look_at = 0.0
        presented(served)  # whoever comes first still sees the old one
        assert presented(served) != before
        assert hashlib.sha256(presented(served)).hexdigest().upper() == tls.fingerprint().replace(":", "")


def test_a_board_without_a_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_signed.time, "time", lambda: 1000.0)
    own = SelfSigned(tmp_path / "certificate.pem", tmp_path / "private-key.pem", "127.0.0.1")
    own.renew()
    assert certificate(own.certificate).not_valid_before_utc.year > 2020


@pytest.mark.parametrize("name", ["certificate.pem", "private-key.pem"])
def test_damaged_files_are_told(tmp_path: Path, name: str) -> None:
    opened(tmp_path)
    (tmp_path / "tls" / "certificate.pem").unlink() if name == "private-key.pem" else None
    (tmp_path / "tls" / name).write_text("nonsense")
    with pytest.raises(StateDamaged, match=name):
        opened(tmp_path)


def test_the_owner_s_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = opened(tmp_path / "first"), opened(tmp_path / "second")
    files = {"tls_cert": str(first.certificate), "tls_key": str(first.certificate.with_name("private-key.pem"))}
    tls = open_tls(ServerSettings(**files), "127.0.0.1", tmp_path)  # type: ignore[arg-type]
    assert tls is not None
    with serving(ScriptedModel(), tls=tls) as served:
        assert hashlib.sha256(presented(served)).hexdigest().upper() == first.fingerprint().replace(":", "")
        for name in ("certificate.pem", "private-key.pem"):  # as tools do that renew certificates
            first.certificate.with_name(name).write_bytes(second.certificate.with_name(name).read_bytes())
        tls.follow(ServerSettings())
        assert hashlib.sha256(presented(served)).hexdigest().upper() == second.fingerprint().replace(":", "")
        first.certificate.write_text("half")
        tls.follow(ServerSettings())
        assert "the certificate stays as it was" in caplog.text
        presented(served)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "first"), opened(tmp_path / "second")
    key = second.certificate.with_name("private-key.pem")
    for files in ((first.certificate, key), (first.certificate, tmp_path / "none"), (key, key)):
        with pytest.raises(InvalidInput, match="cannot use"):
            Tls(*files)
    for half in ({"tls_cert": "a"}, {"tls_key": "a"}):
        with pytest.raises(InvalidInput, match="a certificate needs its key"):
            open_tls(ServerSettings(**half), "127.0.0.1", tmp_path)  # type: ignore[arg-type]


def test_whoever_does_not_finish_the_handshake_is_counted(tmp_path: Path) -> None:
    admission = Admission(ServerSettings(max_connections=2))
    with serving(ScriptedModel(), tls=opened(tmp_path), admission=admission) as served:
        address = ("127.0.0.1", httpx.URL(served.url).port or 0)
        with socket.create_connection(address), socket.create_connection(address):
            assert served.eventually(lambda: admission.open == 2)
            with socket.create_connection(address, timeout=PATIENCE) as third:
                assert third.recv(1) == b""
        assert served.eventually(lambda: admission.open == 0)
