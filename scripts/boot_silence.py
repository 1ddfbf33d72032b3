"""What an emulated machine sent, from QEMU's captures: every frame that nobody asked for."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_HEADER, _RECORD = 24, 16  # bytes of a pcap file's header and of each packet's
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
IGMP, TCP, UDP, ICMP, ICMPV6 = 2, 6, 17, 1, 58
SYN, ACK = 0x02, 0x10
MDNS, DHCP_CLIENT, DHCP_SERVER = 5353, 68, 67
GROUPS = {ipaddress.ip_address("224.0.0.251"), ipaddress.ip_address("ff02::fb")}
NEIGHBOURS = {135, 136, 131, 132, 143}  # ICMPv6: who has this address, and which groups this machine is in


def frames(capture: Path) -> Iterator[bytes]:
    """Ethernet frames of a pcap file; a last one that was cut off does not count."""
    data = capture.read_bytes() if capture.exists() else b""
    order = "little" if data[:4] == b"\xd4\xc3\xb2\xa1" else "big"
    at = _HEADER
    while at + _RECORD <= len(data):
        size = int.from_bytes(data[at + 8 : at + 12], order)  # type: ignore[arg-type]
        at += _RECORD
        if at + size <= len(data):
            yield data[at : at + size]
        at += size


def described(frame: bytes) -> tuple[str, bool]:
    """What a frame is, and whether a board may send it without being asked."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ARP:
        return "ARP", True
    if kind == IPV4:
        return _packet(frame[14 + (frame[14] & 15) * 4 :], frame[23], ipaddress.ip_address(frame[30:34]))
    if kind == IPV6:
        protocol, rest = frame[20], frame[54:]
        if protocol == 0:  # hop-by-hop options, before multicast listener reports
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        return _packet(rest, protocol, ipaddress.ip_address(frame[38:54]))
    return f"frame of type {kind:#06x}", False


def _packet(body: bytes, protocol: int, to: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[str, bool]:
    source, target = (int.from_bytes(body[at : at + 2], "big") for at in (0, 2))
    if protocol == TCP:
        asking = body[13] & (SYN | ACK) == SYN
        return (f"TCP connection to {to} port {target}", False) if asking else ("TCP, answers", True)
    if protocol == UDP and source == MDNS and target == MDNS and to in GROUPS:
        return "multicast DNS", True
    if protocol == UDP and (source, target) == (DHCP_CLIENT, DHCP_SERVER):
        return "DHCP", True
    if protocol == UDP:
        return f"UDP to {to} port {target}", False
    if protocol == ICMPV6:
        return ("ICMPv6, neighbours", True) if body[0] in NEIGHBOURS else (f"ICMPv6 type {body[0]} to {to}", False)
    if protocol == IGMP:
        return "IGMP", True
    if protocol == ICMP and body[0] == 0:
        return "ICMP, echo replies", True
    return f"protocol {protocol} to {to}", False


def sent(captures: list[Path], mac: bytes) -> tuple[Counter[str], Counter[str]]:
    """How many frames of each kind the machine with this address sent: those it may send, and those it may not."""
    allowed: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for capture in captures:
        for frame in frames(capture):
            if frame[6:12] == mac:
                what, fine = described(frame)
                (allowed if fine else others)[what] += 1
    return allowed, others
