"""The files that Raspberry Pi Imager and people write onto the boot partition: cloud-init's NoCloud, as far as it fits.

`user-data` (#cloud-config): hostname, timezone, users' ssh_authorized_keys, ntp servers by address. `meta-data`:
local-hostname. `network-config` (netplan, version 2): ethernets and wifis with addresses, access points and the
regulatory domain. There is nothing here that runs commands or sets passwords; what is not understood is told.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgeai.errors import InvalidInput

USER_DATA, META_DATA, NETWORK_CONFIG = "user-data", "meta-data", "network-config"
_UNDERSTOOD = {"hostname", "fqdn", "timezone", "users", "user", "ssh_authorized_keys", "ntp"}
_NOT_WORTH_A_NOTE = {"keyboard", "manage_etc_hosts", "locale", "ssh_pwauth", "enable_ssh", "preserve_hostname"}
_NOTHING = (None, "", "~", "null", "Null", "NULL")  # as YAML 1.1 writes it
_YES = {"y", "yes", "true", "on"}
Document = Mapping[str, Any]  # every scalar in it is text: 012345670 is a password, and 2020-31-12 as well


@dataclass(frozen=True, slots=True)
class WifiNetwork:
    """A Wi-Fi to join, or to offer. `secret` is a passphrase or 64 hex digits; None for an open network."""

    name: str
    secret: str | None = None
    hidden: bool = False
    offered: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """How a network interface gets its addresses. `name` may be a pattern: eth*."""

    name: str
    dhcp: bool = True
    addresses: tuple[str, ...] = ()
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """What was asked for. `notes` says what was not understood or has no effect, for people."""

    hostname: str | None = None
    timezone: str | None = None
    ssh_keys: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    wifi: tuple[WifiNetwork, ...] = ()
    country: str | None = None
    notes: tuple[str, ...] = field(default=())


def read_folder(folder: Path) -> BoardSettings:
    """The settings in `folder`. A file that cannot be read becomes a note: a board must start with whatever it has."""
    notes: list[str] = []
    documents = {name: _document(folder / name, notes) for name in (USER_DATA, META_DATA, NETWORK_CONFIG)}
    user = documents[USER_DATA]
    notes += [f"{USER_DATA}: {key} has no effect here" for key in sorted(set(user) - _UNDERSTOOD - _NOT_WORTH_A_NOTE)]
    network = documents[NETWORK_CONFIG]
    network = _mapping(network.get("network", network))
    names = (user.get("hostname"), user.get("fqdn"), documents[META_DATA].get("local-hostname"))
    return BoardSettings(
        hostname=next(filter(None, map(_text, names)), None),
        timezone=_text(user.get("timezone")),
        ssh_keys=tuple(_ssh_keys(user, notes)),
        ntp=tuple(_ntp(user, notes)),
        interfaces=tuple(_interfaces(network)),
        wifi=tuple(_wifi(network, notes)),
        country=_country(network),
        notes=tuple(notes),
    )


def _document(path: Path, notes: list[str]) -> Document:
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506 (makes text only)
        json.dumps(content, ensure_ascii=False).encode()  # refuses halves of characters, and what contains itself
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{path.name} cannot be read: {' '.join(str(error).split())}")
        return {}
    if content is not None and not isinstance(content, Mapping):
        notes.append(f"{path.name} is not made of names with values")
    return _mapping(content)


def _mapping(value: Any) -> Document:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    """A scalar; None for YAML's ways to say nothing, and for what is no scalar."""
    return value if isinstance(value, str) and value not in _NOTHING else None


def _yes(value: Any, default: bool = False) -> bool:
    """Whether a scalar says yes; `default` where nothing is said."""
    text = _text(value)
    return default if text is None else text.lower() in _YES


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in _NOTHING else [value]


def _ssh_keys(user: Document, notes: list[str]) -> Iterator[str]:
    holders = [user, *(_mapping(one) for one in [*_listed(user.get("users")), user.get("user")])]
    for holder in holders:
        if any(_text(holder.get(name)) for name in ("passwd", "plain_text_passwd", "hashed_passwd")):
            notes.append(f"{USER_DATA}: passwords have no effect, nobody can log in by one")
        for key in [*_listed(holder.get("ssh_authorized_keys")), *_listed(holder.get("ssh-authorized-keys"))]:
            line = str(key).strip()
            if line.startswith(("ssh-", "ecdsa-", "sk-")) and "\n" not in line:
                yield line
            elif line:
                notes.append(f"{USER_DATA}: {line[:20]!r} is not an SSH key")


def _ntp(user: Document, notes: list[str]) -> Iterator[str]:
    section = _mapping(user.get("ntp"))
    for server in [*_listed(section.get("servers")), *_listed(section.get("pools"))]:
        try:
            yield str(ipaddress.ip_address(str(server)))
        except ValueError:
            notes.append(f"{USER_DATA}: time server {server} has to be an address, for no names are looked up")


def _interfaces(network: Document) -> Iterator[Interface]:
    for kind in ("ethernets", "wifis"):
        for name, entry in _mapping(network.get(kind)).items():
            if not isinstance(entry, Mapping):  # such as `renderer: networkd`
                continue
            addresses = tuple(filter(None, map(_text, _listed(entry.get("addresses")))))
            yield Interface(name, _yes(entry.get("dhcp4"), not addresses), addresses, _gateway(entry))


def _gateway(entry: Document) -> str | None:
    routes = [_mapping(one) for one in _listed(entry.get("routes"))]
    vias = [one.get("via") for one in routes if one.get("to") in ("default", "0.0.0.0/0")]
    return next(filter(None, map(_text, [entry.get("gateway4"), *vias])), None)


def _wifi(network: Document, notes: list[str]) -> Iterator[WifiNetwork]:
    for entry in _mapping(network.get("wifis")).values():
        for name, value in _mapping(_mapping(entry).get("access-points")).items():
            point = _mapping(value)
            try:
                yield checked_wifi(name, _secret(name, point), point)
            except InvalidInput as error:
                notes.append(f"{NETWORK_CONFIG}: {error.message}")


def _secret(name: str, point: Document) -> str | None:
    given = point.get("password") or _mapping(point.get("auth")).get("password")
    if given is not None and not isinstance(given, str):  # no reason to take the network for an open one
        raise InvalidInput(f"the password of Wi-Fi {name!r} has to be text", param="password")
    return _text(given)


def checked_wifi(name: str, secret: str | None, point: Document) -> WifiNetwork:
    """A Wi-Fi network. Raises `InvalidInput` for a name (32 bytes) or passphrase (8 to 63) that IEEE 802.11 has not."""
    if not 1 <= len(name.encode()) <= 32:
        raise InvalidInput(f"the Wi-Fi name {name!r} has not 1 to 32 bytes", param="name")
    if secret is not None and not is_hashed(secret) and not (8 <= len(secret) <= 63 and secret.isascii()):
        raise InvalidInput(f"the password of Wi-Fi {name!r} has not 8 to 63 plain characters", param="password")
    if secret is not None and not secret.isprintable():
        raise InvalidInput(f"the password of Wi-Fi {name!r} has characters that cannot be typed", param="password")
    return WifiNetwork(name, secret, _yes(point.get("hidden")), point.get("mode") == "ap")


def is_hashed(secret: str) -> bool:
    """Whether it is a key of 256 bits, as Imager writes, and no passphrase."""
    return len(secret) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in secret)


def _country(network: Document) -> str | None:
    found = [_text(_mapping(entry).get("regulatory-domain")) for entry in _mapping(network.get("wifis")).values()]
    return next((code.upper() for code in found if code and is_country(code)), None)


def is_country(code: str) -> bool:
    """Whether it is made as ISO 3166's codes are."""
    return len(code) == 2 and code.isascii() and code.isalpha()
