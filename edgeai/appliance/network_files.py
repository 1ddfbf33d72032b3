"""Files that systemd-networkd, wpa_supplicant and nftables read, from a board's settings. Pure text."""

from __future__ import annotations

from collections.abc import Iterable

from edgeai.appliance.cloud_config import BoardSettings, Interface, WifiNetwork, is_hashed

ACCESS_POINT_ADDRESS = "10.42.0.1/24"
SSH_PORT, NTP_PORT, DHCP_SERVER_PORT, SETUP_PAGE_PORT = 22, 123, 67, 81

# As in images/overlay/etc/systemd/network: nothing is asked for but an address.
_QUIET = """LinkLocalAddressing=yes
IPv6AcceptRA=no
LLDP=no
EmitLLDP=no
LLMNR=no
MulticastDNS=no

[DHCPv4]
ClientIdentifier=mac
UseDNS=no
UseHostname=no
UseTimezone=no
SendHostname=no
"""


def wifi_config(networks: Iterable[WifiNetwork], country: str | None) -> str:
    """wpa_supplicant's configuration. Names are written as hex: they may have any character."""
    lines = ["update_config=0", "ap_scan=1", *([f"country={country}"] if country else [])]
    for network in networks:
        lines += [
            "network={",
            f"    ssid={network.name.encode().hex()}",
            *(f"    {line}" for line in _wifi_lines(network)),
            "}",
        ]
    return "\n".join(lines) + "\n"


def _wifi_lines(network: WifiNetwork) -> list[str]:
    lines = ["scan_ssid=1"] if network.hidden and not network.offered else []
    if network.offered:
        lines += ["mode=2", "frequency=2437"]
    if network.secret is None:
        return [*lines, "key_mgmt=NONE"]
    hashed = is_hashed(network.secret)
    secret = network.secret if hashed else f'"{network.secret}"'
    if network.offered:
        return [*lines, "key_mgmt=WPA-PSK", "proto=RSN", "pairwise=CCMP", f"psk={secret}"]
    kinds = "WPA-PSK WPA-PSK-SHA256" if hashed else "WPA-PSK WPA-PSK-SHA256 SAE"  # SAE needs the passphrase itself
    return [*lines, f"key_mgmt={kinds}", "ieee80211w=1", f"psk={secret}"]


def interface_network(interface: Interface) -> str:
    """Networkd's file for an interface with settings of its own."""
    lines = ["[Match]", f"Name={interface.name}", "", "[Network]", f"DHCP={'ipv4' if interface.dhcp else 'no'}"]
    lines += [f"Address={address}" for address in interface.addresses]
    lines += [f"Gateway={interface.gateway}"] if interface.gateway else []
    return "\n".join(lines) + "\n" + _QUIET


def access_point_network() -> str:
    """Networkd's file for an access point: its own address, and addresses for those who join."""
    return f"""[Match]
Type=wlan

[Network]
Address={ACCESS_POINT_ADDRESS}
DHCPServer=yes
LinkLocalAddressing=ipv6
IPv6AcceptRA=no

[DHCPServer]
PoolOffset=10
EmitDNS=no
EmitRouter=no
"""


def opened_ports(settings: BoardSettings, *, access_point: bool) -> str:
    """Nftables commands for what was asked for beyond the server; see `images/overlay/etc/nftables.conf`."""
    wanted = [
        (bool(settings.ssh_keys), "tcp_in", SSH_PORT),
        (access_point, "udp_in", DHCP_SERVER_PORT),
        (access_point and not settings.wifi, "tcp_in", SETUP_PAGE_PORT),
        (bool(settings.ntp), "udp_out", NTP_PORT),
    ]
    lines = [f"add element inet edgeai {name} {{ {port} }}" for needed, name, port in wanted if needed]
    return "".join(f"{line}\n" for line in lines)
