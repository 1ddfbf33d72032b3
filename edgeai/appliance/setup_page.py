"""The set-up page of a board that knows no Wi-Fi: one form, on its own access point only.

Whoever is near enough to join sees the first key there, until a network is named. Then the access point is gone.
"""

from __future__ import annotations

import hmac
import html
import secrets
import socket
import subprocess
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import yaml

from edgeai.appliance import saved_wifi
from edgeai.appliance.card_writes import SYSTEM_DATA
from edgeai.appliance.cloud_config import META_DATA, NETWORK_CONFIG, checked_wifi, is_country
from edgeai.appliance.network_files import ACCESS_POINT_ADDRESS, SETUP_PAGE_PORT
from edgeai.errors import InvalidInput
from edgeai.package.durable import write_file

FIRST_KEY = Path("/data/edgeai/first-key.txt")
MOST_BYTES = 4096  # of a form
RESTART_SECONDS = 3  # so that the answer still arrives
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgeai</title><style>body{{font:1.1rem sans-serif;max-width:30rem;margin:2rem auto;padding:0 1rem}}
input{{display:block;width:100%;font:inherit;padding:.4rem;margin:.2rem 0 1rem;box-sizing:border-box}}</style>
<h1>edgeai</h1>{message}{form}<p>Talk to it now: <a href="http://{address}/">http://{address}</a></p>{key}</html>"""
FORM = """<form method="post" accept-charset="utf-8"><input type="hidden" name="token" value="{token}">
<label>Name of your Wi-Fi<input name="wifi" required maxlength="32"></label>
<label>Its password; leave empty if it has none<input name="password" type="password" autocomplete="off"></label>
<label>Country, two letters: KE, LA ...<input name="country" maxlength="2"></label>
<label>Name of this board<input name="hostname" placeholder="edgeai" maxlength="63"></label>
<button>Save and start again</button></form>"""


def save(form: Mapping[str, str], folder: Path = SYSTEM_DATA) -> None:
    """Keep what a form says, as the files that people could have written. Raises `InvalidInput`, `OutOfDisk`."""
    wifi = checked_wifi(form.get("wifi", ""), form.get("password") or None, {})
    country = form.get("country", "").strip().upper()
    if country and not is_country(country):
        raise InvalidInput(f"{country!r} is not a country's two letters", param="country")
    point = {} if wifi.secret is None else {"password": wifi.secret}
    entry = {"access-points": {wifi.name: point}} | ({"regulatory-domain": country} if country else {})
    saved_wifi.forget_proof(folder)
    write_file(folder / META_DATA, _yaml({"local-hostname": form.get("hostname", "").strip()}))
    write_file(folder / NETWORK_CONFIG, _yaml({"version": 2, "wifis": {"wl*": entry}}), mode=0o600)


def _yaml(document: object) -> bytes:
    return yaml.safe_dump(document, encoding="ascii")


def page(token: str, message: str = "", *, form: bool = True, key_file: Path = FIRST_KEY) -> bytes:
    """The page as HTML."""
    key = key_file.read_text().strip() if key_file.exists() else ""
    return PAGE.format(
        message=f"<p><strong>{html.escape(message)}</strong></p>" if message else "",
        form=FORM.format(token=token) if form else "",
        address=ACCESS_POINT_ADDRESS.partition("/")[0],
        key=f"<p>Key: <code>{html.escape(key)}</code></p>" if key else "",
    ).encode()


class Handler(BaseHTTPRequestHandler):
    """Shows the form and takes it. A page elsewhere does not know the token, and cannot send it."""

    token = secrets.token_urlsafe(16)
    folder = SYSTEM_DATA
    timeout = 30

    def do_GET(self) -> None:
        """The page, whatever the path: phones ask for several."""
        self._answer(HTTPStatus.OK, page(self.token, saved_wifi.given_up(self.folder) or ""))

    def do_POST(self) -> None:
        """Keep the form and start the board again."""
        length = int(self.headers.get("content-length", "0") or 0)
        if not 0 < length <= MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, page(self.token, "That is too much."))
            return
        sent = parse_qs(self.rfile.read(length).decode("utf-8", "replace"))
        form = {name: values[0] for name, values in sent.items()}
        if not hmac.compare_digest(form.pop("token", "").encode(), self.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, page(self.token, "Please send this form again."))
            return
        try:
            save(form, self.folder)
        except InvalidInput as error:
            self._answer(HTTPStatus.BAD_REQUEST, page(self.token, f"{error.message}."))
            return
        text = "Saved. The board starts again and joins your Wi-Fi; look for it there."
        self._answer(HTTPStatus.OK, page(self.token, text, form=False))
        threading.Timer(RESTART_SECONDS, restart).start()

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Listens on the access point's address, which need not be there yet."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind to an address that comes later (ip(7), IP_FREEBIND)."""
        self.socket.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_FREEBIND", 15), 1)
        super().server_bind()


def restart() -> None:
    """Start the board again."""
    subprocess.run(["systemctl", "reboot"], check=True)


def main() -> None:
    """Serve until the board starts again."""
    Server((ACCESS_POINT_ADDRESS.partition("/")[0], SETUP_PAGE_PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
