"""boot_image's own reading of what a machine sent."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
GUEST, OTHER = bytes.fromhex("525400123456"), bytes.fromhex("525400000002")
ARP = GUEST.join([b"\xff" * 6, b"\x08\x06" + b"\0" * 28])


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def ipv4(protocol: int, to: str, body: bytes, sender: bytes = GUEST) -> bytes:
    header = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15]) + ipaddress.ip_address(to).packed
    return b"\xff" * 6 + sender + b"\x08\x00" + header + body


def ipv6(protocol: int, to: str, body: bytes) -> bytes:
    header = bytes([0x60, 0, 0, 0, 0, 0, protocol, 255]) + b"\0" * 16 + ipaddress.ip_address(to).packed
    return b"\xff" * 6 + GUEST + b"\x86\xdd" + header + body


def udp(source: int, target: int) -> bytes:
    return struct.pack(">HHHH", source, target, 8, 0)


def tcp(flags: int) -> bytes:
    return struct.pack(">HHIIBB", 40000, 443, 0, 0, 0x50, flags) + b"\0" * 6


ALLOWED = [
    ("ARP", ARP),
    ("DHCP", ipv4(17, "255.255.255.255", udp(68, 67))),
    ("multicast DNS", ipv4(17, "224.0.0.251", udp(5353, 5353))),
    ("multicast DNS", ipv6(17, "ff02::fb", udp(5353, 5353))),
    ("TCP, answers", ipv4(6, "10.0.2.2", tcp(0x12))),
    ("ICMPv6, neighbours", ipv6(58, "ff02::2", bytes([135, 0, 0, 0]))),
    ("ICMPv6, neighbours", ipv6(0, "ff02::16", bytes([58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0]))),
    ("IGMP", ipv4(2, "224.0.0.22", b"\x22\0\0\0")),
]
NOT_ALLOWED = [
    ("UDP to 10.0.2.3 port 53", ipv4(17, "10.0.2.3", udp(40000, 53))),
    ("UDP to 10.0.2.3 port 5353", ipv4(17, "10.0.2.3", udp(5353, 5353))),
    ("UDP to 192.0.2.1 port 123", ipv4(17, "192.0.2.1", udp(123, 123))),
    ("TCP connection to 192.0.2.1 port 443", ipv4(6, "192.0.2.1", tcp(0x02))),
    ("ICMPv6 type 133 to ff02::2", ipv6(58, "ff02::2", bytes([133, 0, 0, 0]))),
    ("frame of type 0x88cc", b"\xff" * 6 + GUEST + b"\x88\xcc"),
]


def test_frames_are_told_apart() -> None:
    from boot_silence import described

    assert [described(frame) for _, frame in ALLOWED] == [(what, True) for what, _ in ALLOWED]
    assert [described(frame) for _, frame in NOT_ALLOWED] == [(what, False) for what, _ in NOT_ALLOWED]


def test_only_what_the_machine_sent_counts(tmp_path: Path) -> None:
    from boot_silence import sent

    capture = tmp_path / "net.pcap"
    packets = [ARP, ipv4(6, "192.0.2.1", tcp(0x02), sender=OTHER), NOT_ALLOWED[0][1]]
    records = b"".join(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets)
    capture.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, 1) + records + b"\0" * 9)
    allowed, others = sent([capture, tmp_path / "missing.pcap"], GUEST)
    assert (dict(allowed), dict(others)) == ({"ARP": 1}, {"UDP to 10.0.2.3 port 53": 1})


def test_what_uboot_started_is_read_from_the_console(tmp_path: Path) -> None:
    from boot_uboot import started

    assert started(tmp_path) == []
    console = (
        "edgeai: slot a is good, b is tried, tries left: 3\r\nedgeai: starting slot b\r\nedgeai: starting slot a\r\n"
    )
    (tmp_path / "serial.log").write_bytes(console.encode() + b"\xff\x1b[?25h")
    assert started(tmp_path) == ["b", "a"]
