"""Whether and how a server tells the network where it is."""

from __future__ import annotations

import ipaddress
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from edgeai import __version__
from edgeai.server.systemd import say_status

if TYPE_CHECKING:
    import socket

    from edgeai.config import ServerSettings


def announcing(settings: ServerSettings, listener: socket.socket, *, tls: bool = False) -> AbstractContextManager[None]:
    """Announce the server while the block runs, if its settings want that, or say nothing and others can reach it.

    systemd is told under which name that is: it is on an appliance's screen.
    """
    host, port = listener.getsockname()[:2]
    wanted = settings.announce if settings.announce is not None else not ipaddress.ip_address(host).is_loopback
    if not wanted:
        return nullcontext()
    from edgeai.appliance.serial import serial_suffix
    from edgeai.discovery.announce import Announcement
    from edgeai.discovery.announce import announcing as announce

    properties = {"version": __version__, "tls": "1" if tls else "0"}
    return announce(Announcement.of(settings.name, host, port, properties, serial_suffix()), say_status)
